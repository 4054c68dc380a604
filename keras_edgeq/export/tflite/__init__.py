"""TFLite files: conversion by TensorFlow, and integer kernels written into its result."""
