//! RobustBench's model cards, so that results can be put beside a leaderboard's.
//!
//! Percent are texts with two digits there. What an evaluation cannot know (authors, venue, link)
//! is left empty for the user to fill in; what it must not claim is `null`: only a plan with
//! AutoAttack's standard version fills `autoattack_acc`.

use crate::{
    RecordError,
    records::record::{HONEST, Record, WORST_CASE},
    records::record_file::write_atomic,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A fraction as RobustBench writes it: `0.8874` is `"88.74"`.
pub fn percent(share: f64) -> String {
    format!("{:.2}", 100.0 * share)
}

/// The radius as RobustBench writes it: `8/255`, or a plain number.
fn radius(eps: f64) -> String {
    let steps = eps * 255.0;
    match (steps - steps.round()).abs() < 1e-6 && (1.0..=255.0).contains(&steps.round()) {
        true => format!("{}/255", steps.round()),
        false => format!("{eps}"),
    }
}

/// RobustBench's name of a norm; `None` for one it has no leaderboard for.
fn norm(name: &str) -> Option<&'static str> {
    match name {
        "linf" => Some("Linf"),
        "l2" => Some("L2"),
        _ => None,
    }
}

/// The model card of a worst case; `clean` is the record of the same defence without attack.
pub fn card(worst: &Record, clean: &Record) -> Value {
    let name = match worst.is_defended() {
        true => format!("{} with {}", worst.model, worst.defence),
        false => worst.model.clone(),
    };
    let attacks: Vec<&str> = worst
        .extra
        .get("attacks")
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(|part| part["attack"].as_str()).collect())
        .unwrap_or_default();
    let standard = attacks.iter().any(|attack| attack.starts_with("autoattack"));
    let robust = worst.share().map(percent);
    let eps = worst.threat.as_ref().and_then(|threat| threat.eps).map(radius);
    json!({
        "link": "",
        "name": name,
        "authors": "",
        // Zero-shot models were trained on other data than that they are tested on.
        "additional_data": true,
        "number_forward_passes": 1,
        "dataset": worst.dataset,
        "venue": "",
        "architecture": worst.model,
        "eps": eps,
        "clean_acc": clean.share().map(percent),
        "reported": robust,
        "autoattack_acc": if standard { robust.clone() } else { None },
        "external": Value::Null,
        "footnote": format!(
            "{} pictures; worst case over {}.",
            worst.n,
            if attacks.is_empty() { worst.attack.clone() } else { attacks.join("; ") }
        ),
        "unreliable": worst.is_unreliable(),
    })
}

/// Writes a card for every honest worst case in a norm that RobustBench has, under
/// `model_info/DATASET/NORM/ID.json`, and returns the paths.
pub fn export(folder: &Path, records: &[Record]) -> Result<Vec<PathBuf>, RecordError> {
    let mut paths = Vec::new();
    for worst in records.iter().filter(|r| r.attack == WORST_CASE && r.protocol == HONEST) {
        let clean = records.iter().find(|r| {
            r.is_clean()
                && (&r.dataset, &r.model, &r.pretrained, &r.defence)
                    == (&worst.dataset, &worst.model, &worst.pretrained, &worst.defence)
        });
        let threat = worst.threat.as_ref();
        let (Some(clean), Some(norm)) = (clean, threat.and_then(|t| norm(&t.norm))) else {
            continue;
        };
        let safe = |text: &str| -> String {
            text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
        };
        let eps = threat.and_then(|t| t.eps).map(radius).unwrap_or_default();
        let id = [&worst.model, &worst.pretrained, &worst.defence, &eps].map(|part| safe(part));
        let place = folder.join("model_info").join(safe(&worst.dataset)).join(norm);
        std::fs::create_dir_all(&place).map_err(RecordError::io(&place))?;
        let path = place.join(format!("{}.json", id.join("_")));
        write_atomic(&path, format!("{:#}\n", card(worst, clean)).as_bytes())?;
        paths.push(path);
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::record::{Check, Threat, Verdict};

    #[test]
    fn percent_are_texts_with_two_digits() {
        assert_eq!(
            [0.8874, 0.0, 1.0, 1.0 / 3.0].map(percent),
            ["88.74", "0.00", "100.00", "33.33"]
        );
        assert_eq!([8.0 / 255.0, 0.5].map(radius), ["8/255", "0.5"]);
    }

    #[test]
    fn cards_lie_where_robustbench_looks_and_claim_no_autoattack() {
        let threat = |norm: &str| {
            Some(Threat { norm: norm.into(), eps: Some(8.0 / 255.0), space: "pixels".into() })
        };
        let clean =
            Record { dataset: "cifar10".into(), model: "ViT-B-32".into(), ..Record::default() }
                .counted(180, 200);
        let failed = Check { verdict: Verdict::Fail, ..Check::default() };
        let worst = Record { attack: WORST_CASE.into(), threat: threat("linf"), ..clean.clone() }
            .counted(61, 200)
            .judged(vec![failed]);
        let odd = Record { threat: threat("l1"), ..worst.clone() };
        let folder = tempfile::tempdir().unwrap();
        let paths = export(folder.path(), &[clean, worst, odd]).unwrap();
        assert_eq!(paths.len(), 1);
        assert!(paths[0].starts_with(folder.path().join("model_info/cifar10/Linf")));
        let card: Value = serde_json::from_slice(&std::fs::read(&paths[0]).unwrap()).unwrap();
        assert_eq!((&card["clean_acc"], &card["reported"]), (&json!("90.00"), &json!("30.50")));
        assert_eq!((&card["eps"], &card["unreliable"]), (&json!("8/255"), &json!(true)));
        assert_eq!(card["autoattack_acc"], Value::Null);
        let keys: Vec<&str> = card.as_object().unwrap().keys().map(String::as_str).collect();
        let wanted = "link name authors additional_data number_forward_passes dataset venue \
                      architecture eps clean_acc reported autoattack_acc external footnote unreliable";
        assert_eq!(keys, wanted.split_whitespace().collect::<Vec<_>>());
    }
}
