//! The list of purifiers, and the way from a text to a purifier.

use std::sync::Arc;

use burn::tensor::Tensor;
use clipguard_data::spelling::{Method, Parameters, Spelling, find};
use clipguard_model::Clip;

use crate::{
    ClipureCos, ClipureDiff, Csr, Denoise, Encode, Et3, Purifier, PurifyError, Shifts, Smooth, Ttc,
    clipure_cos, clipure_diff, csr, denoise, et3, shifts, smooth, ttc,
};

/// What purifiers need of the model they defend.
#[derive(Clone, Debug, Default)]
pub struct Material {
    /// Embedding of the blank prompt `[dimensions]`, of any length.
    pub blank: Option<Tensor<1>>,
    /// The texts it is the mean of.
    pub blanks: Vec<String>,
    /// The model.
    pub clip: Option<Arc<Clip>>,
    /// The zero-shot head `[dimensions, classes]`, unit columns.
    pub head: Option<Tensor<2>>,
}

/// Makes a purifier from its spelling.
pub type Build = fn(&Spelling, &Material) -> Result<Box<dyn Purifier>, PurifyError>;

/// Every purifier, by name.
pub const CATALOGUE: &[Method<Build>] = &[
    Method {
        name: "clipure-cos",
        about: "turns the embedding towards that of a blank prompt",
        source: "Zhang et al., CLIPure, ICLR 2025",
        parameters: clipure_cos::Settings::list,
        build: |spelling, material| Ok(Box::new(ClipureCos::from_spelling(spelling, material)?)),
    },
    Method {
        name: "clipure-diff",
        about: "moves the embedding uphill in the likelihood of a diffusion prior",
        source: "Zhang et al., CLIPure, ICLR 2025",
        parameters: clipure_diff::Settings::list,
        build: |spelling, material| Ok(Box::new(ClipureDiff::from_spelling(spelling, material)?)),
    },
    Method {
        name: "prior-denoise",
        about: "replaces the embedding by what a diffusion prior restores from a noised one",
        source: "after Zhang et al., CLIPure, ICLR 2025",
        parameters: denoise::Settings::list,
        build: |spelling, material| Ok(Box::new(Denoise::from_spelling(spelling, material)?)),
    },
    Method {
        name: "ttc",
        about: "pushes the picture away from its own embedding",
        source: "Xing et al., Test-Time Counterattacks, CVPR 2025",
        parameters: ttc::Settings::list,
        build: |spelling, material| Ok(Box::new(Ttc::from_spelling(spelling, material)?)),
    },
    Method {
        name: "csr",
        about: "pushes the picture towards the embedding of its smoothed self",
        source: "Nie et al., Contrastive Spectral Rectification, 2026",
        parameters: csr::Settings::list,
        build: |spelling, material| Ok(Box::new(Csr::from_spelling(spelling, material)?)),
    },
    Method {
        name: "et3",
        about: "moves the picture towards one the classifier is surer of",
        source: "Mirza et al., Energy-guided Transformation, CVPR 2026",
        parameters: et3::Settings::list,
        build: |spelling, material| Ok(Box::new(Et3::from_spelling(spelling, material)?)),
    },
    Method {
        name: "smooth",
        about: "takes the mean embedding of noisy copies of the picture; random",
        source: "after Cohen et al., Randomized Smoothing, ICML 2019",
        parameters: smooth::Settings::list,
        build: |spelling, _| Ok(Box::new(Smooth::from_spelling(spelling)?)),
    },
    Method {
        name: "shifts",
        about: "takes the mean embedding of the picture and of copies moved by a few pixels",
        source: "test-time augmentation, averaged in the embedding",
        parameters: shifts::Settings::list,
        build: |spelling, _| Ok(Box::new(Shifts::from_spelling(spelling)?)),
    },
];

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

    fn encode(
        &self,
        pixels: Tensor<4>,
        keys: &[String],
        draw: u64,
        encoder: &Encode<'_>,
    ) -> Tensor<2> {
        (**self).encode(pixels, keys, draw, encoder)
    }

    fn embedding(&self, embedding: Tensor<2>, keys: &[String], draw: u64) -> Tensor<2> {
        (**self).embedding(embedding, keys, draw)
    }

    fn needs_pictures(&self) -> bool {
        (**self).needs_pictures()
    }

    fn optimises(&self) -> bool {
        (**self).optimises()
    }

    fn limit(&self) -> Option<crate::Limit> {
        (**self).limit()
    }

    fn spelling(&self) -> Spelling {
        (**self).spelling()
    }

    fn digest(&self) -> Option<&str> {
        (**self).digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use clipguard_model::{Precision, prior::Layout, weights::to_safetensors};
    use std::path::Path;

    /// An untrained prior for embeddings of width 4.
    fn prior(folder: &Path) -> String {
        let layout = Layout {
            dim: 4,
            depth: 1,
            heads: 1,
            head_width: 4,
            inner: 8,
            text: 0,
            steps: 1000,
            normformer: true,
        };
        let path = folder.join("prior.safetensors");
        let bytes = to_safetensors(&layout.initial_weights(0), Precision::F32, None).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn every_purifier_is_made_from_its_name_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let prior = prior(folder.path());
        let device = Device::flex();
        let material = Material {
            blank: Some(Tensor::ones([4], &device)),
            clip: Some(Arc::new(crate::ttc::tests::tiny())),
            head: Some(Tensor::ones([16, 2], &device)),
            ..Material::default()
        };
        for method in CATALOGUE {
            // A prior is a file and has no default.
            let text = match (method.parameters)().iter().any(|p| p.key == "prior") {
                true => format!("{}:prior={prior}", method.name),
                false => method.name.to_owned(),
            };
            let purifier = parse(&text, &material).unwrap();
            // Those with steps for each picture, and no others.
            let steps = (method.parameters)().iter().any(|p| p.key == "steps");
            assert_eq!(purifier.optimises(), steps && method.name != "prior-denoise", "{text}");
            let spelled = purifier.spelling().to_string();
            assert_eq!(parse(&spelled, &material).unwrap().spelling().to_string(), spelled);
        }
        let say =
            |text: &str, material: &Material| parse(text, material).err().unwrap().to_string();
        assert!(say("clipure", &material).contains("did you mean `clipure-cos`?"));
        assert!(say("clipure-cos:momentum=1", &material).contains("below 1"));
        assert!(say("clipure-cos", &Material::default()).contains("needs the embedding"));
        for name in ["ttc", "csr", "et3"] {
            assert!(say(name, &Material::default()).contains("needs the model"));
        }
        assert!(say("ttc:eps=0", &material).contains("above 0"));
        assert!(say("csr:width=0", &material).contains("above 0"));
        assert!(say("smooth:copies=0", &material).contains("at least one"));
        assert!(say("smooth:sigma=-1", &material).contains("not negative"));
        assert!(say("shifts:pixels=0", &material).contains("1 to 64"));
        let of = |blank| Material { blank: Some(blank), ..Material::default() };
        assert!(
            say("clipure-cos:blank=imagnet1k", &material).contains("did you mean `imagenet1k`")
        );
        let wide = Material { blank: Some(Tensor::ones([16], &device)), ..material.clone() };
        let turned = |text: &str| {
            let picture = Tensor::<2>::ones([1, 16], &device).slice_fill([0..1, 0..8], 0.5);
            let purifier = parse(text, &wide).unwrap();
            let z = purifier.embedding(picture, &["a".to_owned()], 0);
            z.into_data().try_to_vec::<f32>().unwrap()
        };
        let [own, random] = ["", ",blank=random"]
            .map(|blank| turned(&format!("clipure-cos:steps=1,eta=0.2{blank}")));
        assert_ne!(own, random);
        let zero = of(Tensor::zeros([4], &device));
        assert!(say("clipure-cos", &zero).contains("not zero"));

        let diff = |settings: &str| format!("clipure-diff:prior={prior}{settings}");
        assert!(say("clipure-diff", &material).contains("the path of a prior's file"));
        assert!(say("clipure-diff:prior=/nowhere/p", &material).contains("/nowhere/p: "));
        assert!(say(&diff(""), &Material::default()).contains("needs the embedding"));
        assert!(say(&diff(",first=950,last=940"), &material).contains("not beyond `last`"));
        assert!(say(&diff(",last=1000"), &material).contains("lower `last`"));
        assert!(say(&diff(",draws=0"), &material).contains("at least one"));
        let wide = say(&diff(""), &of(Tensor::ones([6], &device)));
        assert!(wide.contains("of width 4") && wide.contains("width 6"), "{wide}");
    }
}
