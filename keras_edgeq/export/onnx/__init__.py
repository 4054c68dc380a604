"""ONNX files: conversion by tf2onnx, and what is written into its result."""
