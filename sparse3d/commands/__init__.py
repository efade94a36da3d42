"""The commands of `sparse3d`, one module each: `add(commands)` registers it, everything heavy is imported
inside of the function that runs it.
"""
