//! The list of attacks, and the way from a text to an attack.

use clipguard_data::spelling::{Method, Parameters, Spelling, SpellingError, find};

use crate::{Apgd, Attack, AutoAttack, Cw, DeepFool, Fab, Fgsm, HopSkipJump, Patch, Pgd, Square};

/// Makes an attack from its spelling.
pub type Build = fn(&Spelling) -> Result<Box<dyn Attack>, SpellingError>;

/// Every attack, by name.
pub const CATALOGUE: &[Method<Build>] = &[
    Method {
        name: "apgd",
        about: "descent that adapts its step length, in three norms, also towards classes in turn",
        source: "Croce & Hein, ICML 2020 and ICML 2021",
        parameters: Apgd::list,
        build: |spelling| Ok(Box::new(Apgd::from_spelling(spelling)?)),
    },
    Method {
        name: "autoattack",
        about: "the ensemble of APGD, FAB and Square whose numbers are compared",
        source: "Croce & Hein, ICML 2020",
        parameters: AutoAttack::list,
        build: |spelling| Ok(Box::new(AutoAttack::from_spelling(spelling)?)),
    },
    Method {
        name: "cw",
        about: "smallest l2 perturbations by Adam, size against a wrong answer",
        source: "Carlini & Wagner, S&P 2017",
        parameters: Cw::list,
        build: |spelling| Ok(Box::new(Cw::from_spelling(spelling)?)),
    },
    Method {
        name: "deepfool",
        about: "small perturbations by steps to the nearest linearised boundary",
        source: "Moosavi-Dezfooli, Fawzi & Frossard, CVPR 2016",
        parameters: DeepFool::list,
        build: |spelling| Ok(Box::new(DeepFool::from_spelling(spelling)?)),
    },
    Method {
        name: "fab",
        about: "smallest perturbations by steps to the linearised decision boundary",
        source: "Croce & Hein, ICML 2020 (Minimally distorted adversarial examples)",
        parameters: Fab::list,
        build: |spelling| Ok(Box::new(Fab::from_spelling(spelling)?)),
    },
    Method {
        name: "fgsm",
        about: "one step along the sign of the gradient",
        source: "Goodfellow, Shlens & Szegedy, ICLR 2015",
        parameters: Fgsm::list,
        build: |spelling| Ok(Box::new(Fgsm::from_spelling(spelling)?)),
    },
    Method {
        name: "hopskipjump",
        about: "small perturbations from decisions alone, along the boundary",
        source: "Chen, Jordan & Wainwright, S&P 2020",
        parameters: HopSkipJump::list,
        build: |spelling| Ok(Box::new(HopSkipJump::from_spelling(spelling)?)),
    },
    Method {
        name: "patch",
        about: "one square of the picture replaced by anything, its share is the budget",
        source: "Brown et al., 2017 (Adversarial patch)",
        parameters: Patch::list,
        build: |spelling| Ok(Box::new(Patch::from_spelling(spelling)?)),
    },
    Method {
        name: "pgd",
        about: "projected gradient descent, with momentum, restarts and targets",
        source: "Madry et al., ICLR 2018",
        parameters: Pgd::list,
        build: |spelling| Ok(Box::new(Pgd::from_spelling(spelling)?)),
    },
    Method {
        name: "square",
        about: "random search in square windows, by queries alone",
        source: "Andriushchenko et al., ECCV 2020",
        parameters: Square::list,
        build: |spelling| Ok(Box::new(Square::from_spelling(spelling)?)),
    },
];

/// The attack that `text` spells, such as `pgd:eps=4/255,steps=40`.
///
/// # Errors
/// A text of another form, an unknown name or setting (with the closest known one), or a value out
/// of range.
pub fn parse(text: &str) -> Result<Box<dyn Attack>, SpellingError> {
    let spelling: Spelling = text.parse()?;
    (find("attack", CATALOGUE, spelling.name())?.build)(&spelling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attack_is_made_from_its_name_and_read_back() {
        for method in CATALOGUE {
            let attack = parse(method.name).unwrap();
            let spelled = attack.spelling().to_string();
            assert_eq!(parse(&spelled).unwrap().spelling().to_string(), spelled);
            for parameter in (method.parameters)() {
                assert!(!parameter.doc.is_empty() && !parameter.default.is_empty());
                assert_eq!(attack.spelling().get(&parameter.key), Some(parameter.default.as_str()));
            }
        }
    }

    #[test]
    fn mistakes_are_refused_with_a_hint() {
        let say = |text: &str| parse(text).err().unwrap().to_string();
        assert!(say("pdg").contains("did you mean `pgd`?"));
        assert!(say("pgd:step=3").contains("did you mean `steps`?"));
        assert!(say("pgd:steps=0").contains("at least one step"));
        assert!(say("pgd:eps=-1/255").contains("not negative"));
        assert!(say("pgd:norm=l3").contains("unknown variant"));
        assert!(say("pgd:target=far").contains("expected next, likely"));
        assert!(say("pgd:scale=-1").contains("positive number"));
        assert_eq!(
            parse("pgd:eps=8/255,alpha=2/255,momentum=sign-momentum,target=next")
                .unwrap()
                .spelling()
                .get("momentum"),
            Some("sign-momentum")
        );
    }
}
