"""A module imports only from floors below, or from its own package: the dependencies of the library run one
way.
"""

import grimp

# Package or module -> floor. Modules of floors 0 and 1 may import each other; above, packages of one floor
# may not.
FLOORS = {
    "sparse3d_ops": 0,
    "sparse3d": 1,  # the package itself: its version, and the names that it re-exports
    "sparse3d.config": 1,
    "sparse3d.config_yaml": 1,
    "sparse3d.errors": 1,
    "sparse3d.frames": 1,
    "sparse3d.sites": 1,
    "sparse3d.tensor": 1,
    "sparse3d.geometry": 1,
    "sparse3d.io": 2,
    "sparse3d.nn": 2,
    "sparse3d.mesh": 2,
    "sparse3d.data": 3,
    "sparse3d.evaluation": 3,
    "sparse3d.models": 3,
    "sparse3d.fields": 3,
    "sparse3d.gaussians": 3,
    "sparse3d.engine": 4,
    "sparse3d.recipes": 5,
    "sparse3d.viewers": 5,
    "sparse3d.doctor": 5,
    "sparse3d.cli": 6,
}


def package(module: str) -> str:
    """The entry of FLOORS that a module belongs to: sparse3d.io.kitti -> sparse3d.io."""
    return module.split(".")[0] if module.startswith("sparse3d_ops") else ".".join(module.split(".")[:2])


def breaks_a_rule(importer: str, imported: str) -> bool:
    own, other = package(importer), package(imported)
    is_sibling = own != other and FLOORS[own] == FLOORS[other] > 1
    return FLOORS[own] < FLOORS[other] or is_sibling


def test_every_module_imports_from_floors_below_or_its_own_package():
    graph = grimp.build_graph("sparse3d", "sparse3d_ops", cache_dir=None)
    homeless = sorted({package(module) for module in graph.modules} - FLOORS.keys())
    assert not homeless, f"give these a floor in FLOORS (see CONTRIBUTING.md): {homeless}"
    wrong = [
        f"floor {FLOORS[package(importer)]} imports floor {FLOORS[package(imported)]}: {importer}, "
        f"line {detail['line_number']}: {detail['line_contents']}"
        for importer in sorted(graph.modules)
        for imported in sorted(graph.find_modules_directly_imported_by(importer))
        if breaks_a_rule(importer, imported)
        for detail in graph.get_import_details(importer=importer, imported=imported)
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_the_rule_catches_imports_from_above_and_from_siblings():
    assert breaks_a_rule("sparse3d.nn.conv", "sparse3d.models.centerpoint")
    assert breaks_a_rule("sparse3d.data.kitti", "sparse3d.evaluation.kitti")
    assert breaks_a_rule("sparse3d_ops.boxes", "sparse3d")
    assert not breaks_a_rule("sparse3d.data.kitti", "sparse3d.data.loader")
    assert not breaks_a_rule("sparse3d.models.centerpoint", "sparse3d_ops.boxes")
