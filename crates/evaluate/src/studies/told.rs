//! Records of what is no attack: proofs, detectors, and what a purifier did to embeddings.

use crate::{
    Certify, Detection, EvaluateError, Interval, Record, Shift, Threat,
    records::record::CERTIFIED,
    run::schedule::{Work, threat},
    run::summary::{Teller, Unit, annotate},
    studies::certified::{At, Certified, outcomes},
    studies::detection::Pair,
    studies::look::Look,
    studies::shift::Pairs,
    studies::{Detected, Shifted},
};

impl Teller<'_> {
    /// A record for each radius; the first also holds the whole curve.
    pub(crate) fn certified(
        &self,
        work: &Work<'_>,
        of: &Certify,
        unit: &Unit,
        base: Option<f64>,
    ) -> Vec<Record> {
        let samples = outcomes(of, &unit.lines);
        let record = |radius: &f64| {
            let at = At::of(&samples, *radius);
            let mut record = self.record(work, &of.spelling(), None, at.correct);
            record.protocol = CERTIFIED.to_owned();
            record.interval = Some(Interval::clopper_pearson(at.correct, samples.len(), 0.95));
            let space = "pixels".to_owned();
            record.threat = Some(Threat { norm: "l2".to_owned(), eps: Some(*radius), space });
            record.base = base;
            record
        };
        let mut records: Vec<Record> = of.radii.iter().map(record).collect();
        if let Some(first) = records.first_mut() {
            annotate(first, &unit.totals);
            let curve = serde_json::json!(Certified::of(of, &unit.lines));
            first.extra.insert("certified".to_owned(), curve);
        }
        records
    }

    /// What a detector is worth against one attack; `None` as long as a unit is missing.
    pub(crate) fn detected(
        &self,
        work: &Work<'_>,
        of: &Detected,
    ) -> Result<Option<Record>, EvaluateError> {
        let units = [&work.clean, &of.clean, &of.attack, &of.attacked].map(|task| self.read(task));
        let [Some(answers), Some(clean), Some(attack), Some(attacked)] = all(units)? else {
            return Ok(None);
        };
        let score = |unit: &Unit, i: usize| unit.lines[i].row.first().copied();
        let pair = |i: usize| {
            let broken = answers.lines[i].right && !attack.lines[i].right;
            Some(Pair {
                clean: score(&clean, i)?,
                broken: if broken { Some(score(&attacked, i)?) } else { None },
            })
        };
        let pairs: Vec<Pair> = (0..clean.lines.len()).filter_map(pair).collect();
        let told = Detection::of(&of.of.score, of.weight, &pairs, self.plan.seed);
        let mut record = self.bare(work, &of.attack.attack)?;
        told.tell(&mut record);
        Ok(Some(record))
    }

    /// What a purifier did; `None` as long as a unit is missing.
    pub(crate) fn shifted(
        &self,
        work: &Work<'_>,
        of: &Shifted,
    ) -> Result<Option<Record>, EvaluateError> {
        let Some(clean) = self.read(&of.clean)? else { return Ok(None) };
        let clean = looks(&clean);
        let mut shift = Shift::default();
        for (name, _, look) in &of.attacks {
            let Some(attacked) = self.read(look)? else { return Ok(None) };
            let attacked = looks(&attacked);
            if attacked.len() != clean.len() {
                return Ok(None);
            }
            let seed = self.plan.seed;
            shift.attacks.push(Pairs { clean: &clean, attacked: &attacked, seed }.told(name));
        }
        let attack = of.attacks.first().map_or("", |(_, made, _)| made.attack.as_str());
        let mut record = self.bare(work, attack)?;
        record.task = "embedding_shift".to_owned();
        record.extra.insert("embeddings".to_owned(), serde_json::json!(shift));
        Ok(Some(record))
    }

    /// A record that counts nothing.
    fn bare(&self, work: &Work<'_>, attack: &str) -> Result<Record, EvaluateError> {
        let mut record = self.record(work, attack, None, 0);
        (record.n, record.interval) = (0, None);
        record.metrics.0.clear();
        record.threat = Some(threat(attack)?);
        Ok(record)
    }
}

fn looks(unit: &Unit) -> Vec<Look> {
    unit.lines.iter().filter_map(|line| Look::read(&line.row)).collect()
}

/// The first error, or all units.
fn all<const N: usize>(
    units: [Result<Option<Unit>, EvaluateError>; N],
) -> Result<[Option<Unit>; N], EvaluateError> {
    let mut found = [const { None }; N];
    for (to, unit) in found.iter_mut().zip(units) {
        *to = unit?;
    }
    Ok(found)
}
