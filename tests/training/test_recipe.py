"""The recipe: its JSON form and what it refuses."""

from pathlib import Path

import pytest
import torch

from aimc_compiler.errors import RecipeError, TrainingError
from aimc_compiler.training import Recipe, distillation_loss


def test_json_form_goes_there_and_back(tmp_path: Path) -> None:
    recipe = Recipe(noise_factor=2.0, drift_s=(1.0, 3.15e7), clip="k-sigma")
    assert Recipe.from_json(recipe.to_json()) == recipe
    file = tmp_path / "recipe.json"
    file.write_text(recipe.to_json())
    assert Recipe.of(file) == Recipe.of(str(file)) == recipe
    assert Recipe.of({"noise_factor": 2.0}) == Recipe(noise_factor=2.0)
    assert Recipe.of(None) == Recipe()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_facto": 2.0}, "there is no setting 'noise_facto'; there are noise, noise_factor"),
        ({"noise_factor": "a"}, "noise_factor: Input should be a valid number"),
        ({"noise_factor": -1.0}, r"noise_factor is -1.0: give a finite number, 0.0 or more"),
        ({"drop_connect": 2.0}, "drop_connect is 2.0, a share: give a number from 0 to 1"),
        ({"drift_s": [10.0, 1.0]}, "rising and above 0"),
        ({"drift_s": "evalution"}, "drift_s"),
        ({"drift_s": [1.0, 10.0], "noise": "gaussian"}, "which does not drift: set noise to programming"),
        ({"noise": "loud"}, "noise: Input should be 'programming', 'gaussian' or 'none'"),
        ({"remap_every": 0}, "remap_every is 0: give a finite number, 1 or more"),
    ],
)
def test_what_is_wrong_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.of(settings)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"there is no recipe file .*none\.json"):
        Recipe.of(tmp_path / "none.json")


def test_distillation_is_the_cross_entropy_with_soft_targets() -> None:
    torch.manual_seed(0)
    outputs, teacher = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4)
    found = distillation_loss(outputs, teacher, torch.tensor(2.0), share=0.25, temperature=3.0)
    p, q = (teacher / 3).softmax(-1), (outputs / 3).softmax(-1)
    expected = 0.75 * 2.0 + 0.25 * 9 * (p * (p / q).log()).sum(-1).mean()
    torch.testing.assert_close(found, expected)
    with pytest.raises(TrainingError, match="logits of the same classes"):
        distillation_loss(outputs, teacher[:, :3], torch.tensor(2.0), share=0.5, temperature=1.0)


def test_a_word_that_says_no_times_is_refused() -> None:
    with pytest.raises(RecipeError, match="'evalution': give 'evaluation', "):
        Recipe(drift_s="evalution")  # type: ignore[arg-type]
