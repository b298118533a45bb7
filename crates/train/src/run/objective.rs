//! The objective of a run: one of the catalogue, or the caller's own.

use super::Run;
use crate::{
    Beginning, Build, Objective, ObjectiveInfo, Recipe, Start, TrainError, objective::objective,
};
use burn::tensor::Device;
use clipguard_data::Source;
use std::{fs, path::Path, sync::Arc};

impl Run {
    /// As [`Run::start`], with an objective of the caller's own, which `build` makes.
    ///
    /// [`Recipe::objective`] is then its name with its settings, such as `cyclip:weight=1/4`: a
    /// state belongs to the text of its recipe, so whatever has an influence has to stand there.
    ///
    /// # Errors
    /// As [`Run::start`], what `build` refuses, and a name that the catalogue has already: a recipe
    /// must not mean two things.
    pub fn start_with(
        recipe: Recipe,
        source: Arc<dyn Source>,
        folder: &Path,
        build: &Build<'_>,
    ) -> Result<Self, TrainError> {
        vacant(folder)?;
        free(&recipe, &folder.join("plan.toml"))?;
        Self::begin_with(recipe, source, folder, build)?.claim()
    }

    /// As [`Run::resume`], of a run that was begun by [`Run::start_with`].
    ///
    /// # Errors
    /// As [`Run::resume`], what `build` refuses, and a run of an objective of the catalogue.
    pub fn resume_with(
        folder: &Path,
        open: impl FnOnce(&str) -> Result<Arc<dyn Source>, TrainError>,
        build: &Build<'_>,
    ) -> Result<Self, TrainError> {
        let plan = folder.join("plan.toml");
        let text = fs::read_to_string(&plan)
            .map_err(|source| TrainError::Io { path: plan.clone(), source })?;
        let recipe = Recipe::read(&text, &plan)?;
        free(&recipe, &plan)?;
        let source = open(&recipe.data)?;
        if !folder.join(crate::state::FILE).exists() {
            return Self::begin_with(recipe, source, folder, build);
        }
        Self::go_on(recipe, source, folder, build)
    }
}

/// Refuses a name that stands for something else.
fn free(recipe: &Recipe, plan: &Path) -> Result<(), TrainError> {
    let name = recipe.objective.split(':').next().unwrap_or_default();
    match objective(name) {
        None => Ok(()),
        Some(_) => Err(TrainError::Recipe {
            path: plan.to_owned(),
            reason: format!(
                "objective `{name}` is one of the catalogue; a new one needs its own name"
            ),
        }),
    }
}

/// Refuses a folder that holds a run.
pub(super) fn vacant(folder: &Path) -> Result<(), TrainError> {
    match folder.join("plan.toml").exists() {
        false => Ok(()),
        true => Err(TrainError::Folder {
            path: folder.to_owned(),
            reason: "holds a run already; use `--resume` or another folder".to_owned(),
        }),
    }
}

/// The catalogue's entry for the recipe's objective.
pub(super) fn catalogued(
    recipe: &Recipe,
    folder: &Path,
) -> Result<&'static ObjectiveInfo, TrainError> {
    let refuse = |reason| TrainError::Recipe { path: folder.join("plan.toml"), reason };
    recipe.check().map_err(refuse)?;
    objective(&recipe.objective)
        .ok_or_else(|| refuse(format!("objective `{}` is unknown", recipe.objective)))
}

/// The objective of a run; `start` gives the model that the run starts from.
pub(super) fn built(
    recipe: &Recipe,
    source: &Arc<dyn Source>,
    folder: &Path,
    device: &Device,
    build: &Build<'_>,
    start: &dyn Fn() -> Result<Start, TrainError>,
) -> Result<Box<dyn Objective>, TrainError> {
    let path = folder.join("plan.toml");
    let refuse = |reason: String| TrainError::Recipe { path: path.clone(), reason };
    recipe.check_values().map_err(refuse)?;
    let classes = source.classes();
    let built = build(&Beginning { recipe, path: &path, device, classes, start })?;
    if recipe.micro_batch > 0 && built.contrast().is_none() {
        return Err(refuse(format!(
            "micro_batch = {}: `{}` is no loss on the embeddings of pairs; make `batch` smaller",
            recipe.micro_batch, recipe.objective
        )));
    }
    Ok(built)
}
