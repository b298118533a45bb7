//! The costly checks of a defence, each kept in the run folder when finished.

use crate::{
    Check, Defence, EvaluateError,
    checks::{Bench, CATALOGUE, Case, Effort, Probe, Row, Subject},
    classifier::mode_name,
    record_file::write_atomic,
    runner::{Stage, threat},
};
use clipguard_attack::{Batch, Norm, parse};
use clipguard_model::{GradientMode, checkpoint::hex};
use sha2::{Digest, Sha256};
use std::{path::PathBuf, sync::atomic::Ordering};

impl Stage<'_> {
    /// All checks of one defence against the attacks of one budget.
    pub(crate) fn examined(
        &self,
        defence: &Defence,
        attacks: &[String],
        begin: &mut dyn FnMut(&str),
    ) -> Result<Vec<Check>, EvaluateError> {
        let case = Case { classes: self.classifier.head.classes.len(), attacks: attacks.to_vec() };
        let mut found = Vec::new();
        for probe in CATALOGUE {
            begin(&format!("{} · check {}", defence.name, probe.id()));
            let rows: Vec<Row> =
                self.rows(probe, defence, attacks)?.into_iter().map(|(_, row)| row).collect();
            found.push(probe.judge(&case, &rows));
        }
        Ok(found)
    }

    /// What one check measured on every sample, from the folder or computed.
    fn rows(
        &self,
        probe: &Probe,
        defence: &Defence,
        attacks: &[String],
    ) -> Result<Vec<(String, Row)>, EvaluateError> {
        let path = self.rows_file(probe, defence, attacks);
        let kept = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(rows) = kept {
            return Ok(rows);
        }
        let undefended = defence.purify.is_empty();
        let modes = if undefended { vec![GradientMode::Exact] } else { defence.gradients.clone() };
        let victims = modes
            .iter()
            .map(|mode| self.classifier.defended(&defence.purify, (!undefended).then_some(*mode)))
            .collect::<Result<Vec<_>, _>>()?;
        let bare = self.classifier.defended(&[], None)?;
        let budget = threat(&attacks[0]);
        let norm = match budget.norm.as_str() {
            "l1" => Norm::L1,
            "l2" => Norm::L2,
            _ => Norm::Linf,
        };
        let names = modes.iter().map(|mode| mode_name(*mode));
        let subject = |victim| victim as &dyn Subject;
        let bench = Bench {
            modes: names.zip(victims.iter().map(subject)).collect(),
            bare: (!undefended).then_some(&bare as &dyn Subject),
            norm,
            eps: budget.eps.unwrap_or(0.0) as f32,
            attacks,
            seed: self.plan.seed,
            random: false,
            effort: Effort { batch: self.plan.batch, ..Effort::default() },
        };
        let limit = victims[0].limit().map_or(self.plan.batch, |l| l.rows.min(self.plan.batch));
        let count = match self.plan.check_samples {
            0 => self.subset.len(),
            count => count.min(self.subset.len()),
        };
        let mut rows = Vec::new();
        for start in (0..count).step_by(limit) {
            if self.stop.load(Ordering::Relaxed) {
                return Err(EvaluateError::Stopped);
            }
            let end = (start + limit).min(count);
            let keys = &self.subset.keys[start..end];
            let labels = &self.subset.labels[start..end];
            let batch = Batch { pixels: self.subset.part(start..end), labels, keys };
            rows.extend(keys.iter().cloned().zip(probe.rows(&bench, &batch)));
        }
        write_atomic(&path, &serde_json::to_vec(&rows).unwrap_or_default())?;
        Ok(rows)
    }

    fn rows_file(&self, probe: &Probe, defence: &Defence, attacks: &[String]) -> PathBuf {
        let full: Vec<String> = attacks
            .iter()
            .filter_map(|text| Some(parse(text).ok()?.spelling().to_string()))
            .collect();
        let of = serde_json::json!({
            "check": probe.id(),
            "model": self.classifier.digest, "head": self.classifier.head_digest,
            "data": self.subset.digest, "purify": defence.purify, "gradients": defence.gradients,
            "attacks": full, "samples": self.plan.check_samples, "seed": self.plan.seed,
            "version": env!("CARGO_PKG_VERSION"),
        });
        let digest = hex(&Sha256::digest(of.to_string()));
        self.folder.join("units").join(format!("{}.check.json", &digest[..24]))
    }
}
