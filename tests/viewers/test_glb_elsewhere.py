"""Files of ours in a viewer of others: three.js and its glTF loader, as trimesh brings them, in a browser."""

import base64
from dataclasses import replace

import numpy as np
import pytest

from sparse3d.geometry.material import Material
from sparse3d.io.mesh_frames import MeshFrame
from sparse3d.io.meshes import write_mesh
from sparse3d.viewers.exhibit import exhibit_of_mesh
from sparse3d.viewers.still import draw_exhibit
from tests.viewers.conftest import SIZE, screenshot
from tests.viewers.spheres import sphere_mesh, textured_mesh

MESHES = {
    "colours of vertices": sphere_mesh(),
    "one colour": replace(sphere_mesh(colors=False), material=Material((0.9, 0.6, 0.1), unlit=True)),
    "texture": textured_mesh(),
}
SHOW = """
var shown = new Promise((done, failed) => {
  const renderer = new THREE.WebGLRenderer({antialias: true});
  renderer.outputEncoding = THREE.sRGBEncoding;
  renderer.setSize(window.innerWidth, window.innerHeight);
  document.body.style.margin = 0;
  document.body.appendChild(renderer.domElement);
  const scene = new THREE.Scene(), view = VIEW;
  scene.background = new THREE.Color(...view.background);
  const camera = new THREE.PerspectiveCamera(view.angle, window.innerWidth / window.innerHeight, 0.01, 100);
  camera.position.set(...view.eye);
  camera.up.set(0, 1, 0);
  camera.lookAt(...view.target);
  new THREE.GLTFLoader().load("data:model/gltf-binary;base64,FILE", file => {
    scene.add(file.scene);
    scene.traverse(node => node.material && (node.material.side = THREE.DoubleSide));
    renderer.render(scene, camera);
    done();
  }, undefined, failed);
});
</script></body></html>
"""


def upright(place):
    """From our axes, z up, to glTF's, y up."""
    x, y, z = place
    return [x, z, -y]


@pytest.mark.parametrize("name", MESHES)
def test_three_js_shows_what_our_renderer_shows(page, tmp_path, name):
    resources = pytest.importorskip("trimesh.resources", reason="needs trimesh: the extra mesh")
    from trimesh.util import decompress

    exhibit = exhibit_of_mesh(name, MESHES[name])
    write_mesh(tmp_path / "mesh.glb", MESHES[name], MeshFrame(up="y"))
    page_of_others = decompress(resources.get_bytes("templates/viewer.zip"), "zip")["viewer.html.template"]
    three, _, _ = page_of_others.read().decode().partition("var camera,controls")
    view = {
        "eye": upright(exhibit.viewpoint.eye),
        "target": upright(exhibit.viewpoint.target),
        "angle": exhibit.viewpoint.field_of_view,
        "background": [value / 255 for value in exhibit.background],
    }
    script = SHOW.replace("VIEW", str(view))
    script = script.replace("FILE", base64.b64encode((tmp_path / "mesh.glb").read_bytes()).decode())
    (tmp_path / "page.html").write_text(three + script)
    page.goto((tmp_path / "page.html").as_uri())
    page.evaluate("shown")
    seen, wanted = screenshot(page), np.asarray(draw_exhibit(exhibit, SIZE, title=False)).astype(float)
    difference, there = np.abs(seen - wanted).mean(), np.abs(wanted - exhibit.background).mean()
    assert there > 2 and difference < 0.08 * there  # edges are smoothed in another way
