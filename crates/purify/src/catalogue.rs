//! The list of purifiers, and the way from a text to a purifier.

use burn::tensor::Tensor;
use clipguard_data::spelling::{Method, Parameters, Spelling, find};

use crate::{ClipureCos, Purifier, PurifyError, clipure_cos::Settings};

/// What purifiers need of the model they defend.
#[derive(Clone, Debug, Default)]
pub struct Material {
    /// Embedding of the blank prompt `[dimensions]`, of any length.
    pub blank: Option<Tensor<1>>,
}

/// Makes a purifier from its spelling.
pub type Build = fn(&Spelling, &Material) -> Result<Box<dyn Purifier>, PurifyError>;

/// Every purifier, by name.
pub const CATALOGUE: &[Method<Build>] = &[Method {
    name: "clipure-cos",
    about: "turns the embedding towards that of a blank prompt",
    source: "Zhang et al., CLIPure, ICLR 2025",
    parameters: Settings::list,
    build: |spelling, material| {
        let settings = ClipureCos::settings(spelling)?;
        let what = "the embedding of the blank prompt";
        let blank = material.blank.clone();
        let blank = blank.ok_or(PurifyError::Material { purifier: "clipure-cos", what })?;
        Ok(Box::new(ClipureCos::new(settings, blank)?))
    },
}];

/// The purifier that `text` spells, such as `clipure-cos:steps=9`.
///
/// # Errors
/// A text of another form, an unknown name or setting (with the closest known one), a value out of
/// range, or material that is missing.
pub fn parse(text: &str, material: &Material) -> Result<Box<dyn Purifier>, PurifyError> {
    let spelling: Spelling = text.parse()?;
    (find("purifier", CATALOGUE, spelling.name())?.build)(&spelling, material)
}

impl Purifier for Box<dyn Purifier> {
    fn pixels(&self, pixels: Tensor<4>, keys: &[String], draw: u64) -> Tensor<4> {
        (**self).pixels(pixels, keys, draw)
    }

    fn embedding(&self, embedding: Tensor<2>, keys: &[String], draw: u64) -> Tensor<2> {
        (**self).embedding(embedding, keys, draw)
    }

    fn limit(&self) -> Option<crate::Limit> {
        (**self).limit()
    }

    fn spelling(&self) -> Spelling {
        (**self).spelling()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn every_purifier_is_made_from_its_name_and_read_back() {
        let material = Material { blank: Some(Tensor::ones([4], &Device::flex())) };
        for method in CATALOGUE {
            let spelled = parse(method.name, &material).unwrap().spelling().to_string();
            assert_eq!(parse(&spelled, &material).unwrap().spelling().to_string(), spelled);
        }
        let say =
            |text: &str, material: &Material| parse(text, material).err().unwrap().to_string();
        assert!(say("clipure", &material).contains("did you mean `clipure-cos`?"));
        assert!(say("clipure-cos:momentum=1", &material).contains("below 1"));
        assert!(say("clipure-cos", &Material::default()).contains("needs the embedding"));
        let zero = Material { blank: Some(Tensor::zeros([4], &Device::flex())) };
        assert!(say("clipure-cos", &zero).contains("not zero"));
    }
}
