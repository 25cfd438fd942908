"""Trains the model on the backend that KERAS_BACKEND names, from the weights and data of a file."""

import os

import keras
import numpy as np
from keras import layers

from neural_callbacks import NeuralDbgCallback

given = np.load("given.npz")
model = keras.Sequential(
    [
        keras.Input(given["x"].shape[1:]),
        layers.Conv2D(4, 3, activation="relu"),
        layers.BatchNormalization(),
        layers.AveragePooling2D(2),
        layers.Flatten(),
        layers.Dense(10, activation="relu"),
        layers.Dense(5, activation="softmax"),
    ]
)
running = [np.zeros(4), np.ones(4)]
names = ["kernel", "bias", "gamma", "beta", *running, "hidden_kernel", "hidden_bias", "kernel_out", "bias_out"]
model.set_weights([given[name] if isinstance(name, str) else name for name in names])
model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy")
callback = NeuralDbgCallback("runs", os.environ["KERAS_BACKEND"], steps=range(given["steps"]))
model.fit(given["x"], given["labels"], batch_size=int(given["batch"]), shuffle=False, verbose=0, callbacks=[callback])
