//! A folder of PNG, with the caption of each in a text file beside it.

use super::{About, Entry, Shard, write_whole};
use crate::{DataError, file_name};
use std::path::{Path, PathBuf};

/// A folder that is being filled.
pub(super) struct Pictures {
    folder: PathBuf,
    /// Names of the folders of classes.
    classes: Option<Vec<String>>,
}

impl Pictures {
    pub(super) fn create(folder: &Path, about: &About<'_>) -> Self {
        let names = |classes: &[String]| classes.iter().map(|name| folder_name(name)).collect();
        Self { folder: folder.to_owned(), classes: about.classes.map(names) }
    }
}

/// The name of a class as that of a folder; blanks may stay.
fn folder_name(class: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ' ');
    let fits = (1..=64).contains(&class.len()) && class.chars().all(plain);
    if fits && class.trim() == class { class.to_owned() } else { file_name(class) }
}

impl Shard for Pictures {
    fn push(&mut self, entry: Entry) -> Result<(), DataError> {
        let class = entry.label.and_then(|label| self.classes.as_ref()?.get(label));
        let folder = class.map_or(self.folder.clone(), |class| self.folder.join(class));
        std::fs::create_dir_all(&folder).map_err(|e| DataError::write(&folder, e))?;
        // The position in front keeps the order of the source.
        let stem = format!("{:08}-{}", entry.position, file_name(&entry.key));
        if let Some(caption) = &entry.caption {
            write_whole(&folder.join(format!("{stem}.txt")), caption.as_bytes())?;
        }
        write_whole(&folder.join(format!("{stem}.png")), &entry.picture)
    }

    fn finish(self: Box<Self>) -> Result<(), DataError> {
        Ok(())
    }
}
