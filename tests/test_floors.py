"""The floors of the house: a file imports only from floors below, or from its own package."""

import grimp
import pytest

# Later floors stand on earlier ones. Packages of one set stand side by side and do not import each other,
# except on floor 1, where modules are too small to be kept apart.
KERNELS = "sparse3d_ops"
FLOORS = (
    {"sparse3d.config", "sparse3d.config_yaml", "sparse3d.errors", "sparse3d.frames", "sparse3d.sites"}
    | {"sparse3d.tensor", "sparse3d.geometry"},
    {"sparse3d.io", "sparse3d.nn", "sparse3d.mesh"},
    {"sparse3d.data", "sparse3d.evaluation", "sparse3d.models", "sparse3d.fields", "sparse3d.gaussians"}
    | {"sparse3d.compat", "sparse3d.fusion"},
    {"sparse3d.engine"},
    {"sparse3d.recipes", "sparse3d.viewers", "sparse3d.doctor"},
    {"sparse3d.commands"},
    {"sparse3d.cli"},
    {"sparse3d.__main__"},
)
TALKING_FLOORS = {0}
# Doors for code from outside: nothing of the house goes through them.
DOORS = {"sparse3d.compat"}


def room(module: str) -> str:
    """The part of the house that a module belongs to: `sparse3d.data.kitti` -> `sparse3d.data`."""
    return module if module == "sparse3d" else ".".join(module.split(".")[:2])


def floor(module: str) -> int:
    return next((i for i, rooms in enumerate(FLOORS) if room(module) in rooms), -1)


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("sparse3d", KERNELS, cache_dir=None)


def forbidden(importer: str, imported: str) -> bool:
    if importer.startswith(KERNELS):
        return not imported.startswith(KERNELS)
    if imported.startswith(KERNELS) or room(importer) == room(imported) or room(importer) == "sparse3d":
        return False
    if room(imported) in DOORS:
        return True
    if imported == "sparse3d":  # its names come from floor 1; only the version is free of that
        return False
    above, below = floor(importer), floor(imported)
    return below > above or (below == above and above not in TALKING_FLOORS)


def test_every_module_has_a_floor(graph):
    homeless = {
        room(module)
        for module in graph.modules
        if not module.startswith(KERNELS) and module != "sparse3d" and floor(module) < 0
    }
    assert not homeless, f"give these a floor in {__file__}: {sorted(homeless)}"


def test_imports_go_down(graph):
    broken = []
    for importer in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            if forbidden(importer, imported):
                details = graph.get_import_details(importer=importer, imported=imported)[0]
                broken.append(f"{importer}:{details['line_number']} {details['line_contents']}")
    assert not broken, "imports that do not go down a floor:\n" + "\n".join(broken)


@pytest.mark.parametrize("low", [KERNELS, *sorted(FLOORS[0])])
def test_the_lowest_floors_reach_nothing_above_in_any_number_of_steps(graph, low):
    """Prints the chain. Follows from the law above; stands here because a chain is what one needs to see."""
    if low not in graph.modules:
        pytest.skip(f"{low} is not there yet")
    for rooms in FLOORS[1:]:
        for high in sorted(rooms & graph.modules):
            chain = graph.find_shortest_chain(importer=low, imported=high, as_packages=True)
            assert chain is None, " -> ".join(chain)


def test_the_law_can_fail():
    assert forbidden("sparse3d_ops.segment", "sparse3d.errors")
    assert forbidden("sparse3d.data.kitti", "sparse3d.models.centerpoint")
    assert forbidden("sparse3d.io.kitti", "sparse3d.nn.conv")
    assert forbidden("sparse3d.models.centerpoint", "sparse3d.engine.loop")
    assert forbidden("sparse3d.recipes.detection", "sparse3d.compat.voxels")
    assert not forbidden("sparse3d.compat.spconv.pytorch.conv", "sparse3d.nn.functional")
    assert not forbidden("sparse3d.models.centerpoint", "sparse3d.models.center_head")
    assert not forbidden("sparse3d.models.centerpoint", "sparse3d_ops.boxes")
    assert not forbidden("sparse3d.tensor", "sparse3d.errors")
