"""Built-in models: `specs` are the components, `modules` the torch modules that they build."""
