"""Which pipeline edits is told by the index of a repository, before its weights are fetched."""

import numpy as np
import PIL.Image
import pytest

from tests.generators import made_flux
from widespectrum.errors import HubError, InputError
from widespectrum.generators import load_generator
from widespectrum.types import Prompt

# huggingface_hub calls httpx2 so itself.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

SMALL = {"dtype": "float32", "width": 64, "height": 64, "steps": 2, "device": "cpu"}
WIDE = Prompt(prompt_id="", text="a red barn in fog", pair_id="1", role="wide_spectrum", dimensions=("clarity",))


def edit(generator):
    image = PIL.Image.linear_gradient("L")
    return np.asarray(generator.generate([WIDE], seeds=[0], images=[image])[0])


def fetched(hub):
    return {each.path.rpartition("/")[2] for each in hub.log if each.method == "GET" and "/resolve/" in each.path}


def test_a_checkpoint_of_the_hub(here, hub, tmp_path):
    folder = made_flux.checkpoint(tmp_path / "flux")
    here.create_repo("acme/flux")
    commit = here.upload_folder(repo_id="acme/flux", folder_path=folder).oid
    hub.log.clear()
    generator = load_generator("image-edit", repo="acme/flux", **SMALL)
    assert hub.log == []
    spec = generator.spec
    assert (spec.revision, spec.params["repo"]) == (commit, "acme/flux")
    assert spec.params["edit"] == "FluxImg2ImgPipeline"
    assert fetched(hub) == {"model_index.json"}
    assert np.array_equal(edit(generator), edit(load_generator("image-edit", checkpoint=folder, **SMALL)))


def test_repositories_that_cannot_edit(here, tmp_path):
    with pytest.raises((HubError, InputError), match=r"^image-edit: .*acme/none"):
        _ = load_generator("image-edit", repo="acme/none", **SMALL).spec
    here.create_repo("acme/notes")
    here.upload_file(repo_id="acme/notes", path_or_fileobj=b"a note", path_in_repo="notes.txt")
    with pytest.raises(InputError, match=r"^image-edit: acme/notes has no model_index\.json: expected a pipeline"):
        _ = load_generator("image-edit", repo="acme/notes", **SMALL).spec
