//! Files of `tests/hostile`, found by fuzzing: decoders of other people panic on them. What they hold is
//! lost, with an error, and nothing else.

use crate::*;

fn path(name: &str) -> String {
    format!("{}/tests/hostile/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn run_lengths_beyond_the_palette_cost_one_picture() {
    let bytes = fs::read(path("runs.bmp")).unwrap();
    let error = Picture::decode(&bytes, &Limits::default()).unwrap_err().to_string();
    assert!(!error.is_empty());
    let room = Room::new();
    room.put("runs.bmp", &bytes);
    room.put("whole.bmp", &bmp(7));
    let source = room.open("").unwrap();
    let samples: Vec<_> = source.open(0).unwrap().map(|sample| sample.unwrap()).collect();
    let decoded = samples.into_iter().map(|sample| sample.decode(&Limits::default()).is_ok());
    assert_eq!(decoded.filter(|good| *good).count(), 1);
}

#[test]
fn a_dictionary_that_ends_early_costs_its_row_group() {
    let source = open(&path("dictionary.parquet"), &Options::default()).unwrap();
    let samples: Vec<_> = source.open(0).unwrap().collect();
    let errors: Vec<String> =
        samples.iter().filter_map(|sample| Some(sample.as_ref().err()?.to_string())).collect();
    assert!(errors.iter().any(|error| error.contains("dictionary.parquet")), "{errors:?}");
}
