"""Operations on triangle meshes (`sparse3d.geometry.mesh.Mesh`): meshes in, meshes out."""
