"""From any representation of a scene to any other.

`kinds` are the representations and their files, `steps` what leads from one to another directly, `paths` the
way through them, `judging` what was lost, `finishing` what is done to meshes before they are written.
"""
