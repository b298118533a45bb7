//! Data out, and in again.

use crate::*;
use clipguard_data::write::{Export, Exported, Format};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn export(format: Format, per_shard: u64) -> Export {
    let limits = Limits::default();
    Export { format, per_shard, side: None, limits, threads: 2, strict: false }
}

fn run(export: &Export, source: &dyn Source, folder: &Path) -> Result<Exported, DataError> {
    export.run(source, folder, &AtomicBool::new(false), || {}, |_| {})
}

/// Names and bytes of all files in a folder.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<(String, Vec<u8>)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&p).unwrap()))
        .collect();
    found.sort();
    found
}

fn same(found: &[Found], expected: &[Found]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert_eq!((&a.caption, a.label, colour(a)), (&b.caption, b.label, colour(b)));
    }
}

#[test]
fn every_format_gives_the_samples_back() {
    let room = Room::new();
    let mut members: Vec<(&str, Vec<u8>)> =
        vec![("classes.txt", b"cat\nsea horse\nowl\n".to_vec())];
    let all_pairs = pairs(0, 12);
    members.extend(all_pairs.iter().map(|(name, body)| (name.as_str(), body.clone())));
    room.put("a.tar", &tar(&members));
    let source = room.open("a.tar").unwrap();
    let original = all(&*source, 0);

    let done = run(&export(Format::WebDataset, 5), &*source, &room.path("w")).unwrap();
    assert_eq!((done.samples, done.shards, done.finished), (12, 3, true));
    let back = room.open("w/{00000..00002}.tar").unwrap();
    assert_eq!(back.classes(), source.classes());
    same(&all(&*back, 0), &original);
    assert_eq!(keys(&all(&*back, 0))[4..6], ["00000/0004", "00001/0005"]);
    positions_agree(&*back);
    // Nothing of the pictures' bytes changes.
    let shard = fs::read(room.path("w/00000.tar")).unwrap();
    assert!(shard.windows(bmp(3).len()).any(|window| window == bmp(3)));

    let done = run(&export(Format::Parquet, 5), &*source, &room.path("p")).unwrap();
    assert_eq!((done.samples, done.shards), (12, 3));
    let back = room.open("p/{00000..00002}.parquet").unwrap();
    assert_eq!(back.classes(), source.classes());
    same(&all(&*back, 0), &original);
    positions_agree(&*back);

    run(&export(Format::Png, 5), &*source, &room.path("g")).unwrap();
    let back = room.open("g").unwrap();
    assert_eq!(back.classes().unwrap(), ["cat", "owl", "sea horse"]);
    assert!(room.path("g/sea horse/00000001-0001.png").exists());
    let mut found = all(&*back, 0);
    found.sort_by_key(|s| s.as_ref().unwrap().key.rsplit('/').next().unwrap().to_owned());
    let colours: Vec<u8> = found.iter().flatten().map(colour).collect();
    assert_eq!(colours, (0..12).collect::<Vec<u8>>());
    assert_eq!(found[7].as_ref().unwrap().caption.as_deref(), Some("picture 7"));
}

#[test]
fn an_export_that_was_stopped_goes_on_to_the_same_bytes() {
    let room = Room::new();
    room.put("a.tar", &tar_of(&pairs(0, 40)));
    let source = room.open("a.tar").unwrap();
    for (number, format) in [Format::WebDataset, Format::Parquet].into_iter().enumerate() {
        let (whole, parts) = (room.path(&format!("w{number}")), room.path(&format!("s{number}")));
        let export = export(format, 8);
        run(&export, &*source, &whole).unwrap();
        let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
        let tick = || {
            if count.fetch_add(1, Ordering::Relaxed) == 19 {
                stop.store(true, Ordering::Relaxed);
            }
        };
        let first = export.run(&*source, &parts, &stop, tick, |_| {}).unwrap();
        assert_eq!((first.finished, first.shards, first.samples), (false, 2, 16));
        let told = run(&Export { per_shard: 9, ..export.clone() }, &*source, &parts);
        assert!(told.unwrap_err().to_string().contains("another export"));
        let second = run(&export, &*source, &parts).unwrap();
        assert_eq!((second.finished, second.shards, second.samples), (true, 5, 40));
        assert_eq!(files(&parts), files(&whole));
        // Once more does nothing.
        assert_eq!(run(&export, &*source, &parts).unwrap().samples, 40);
    }
    room.put("full/note.txt", b"mine");
    let told = run(&export(Format::Png, 8), &*source, &room.path("full")).unwrap_err();
    assert!(told.to_string().contains("not empty"), "{told}");
}

#[test]
fn keys_and_classes_of_strangers_stay_within_the_folder() {
    let room = Room::new();
    let names = ["a/b.bmp", "esc\x1b.bmp", "a/c.d.bmp", "__x.bmp", "ü/y.bmp", "UP.BMP"];
    let members: Vec<(&str, Vec<u8>)> = names.iter().map(|name| (*name, bmp(1))).collect();
    let mut members: Vec<_> = members;
    members.insert(0, ("classes.txt", "../../evil\n.\nü\n".into()));
    members.extend([
        ("z.bmp", bmp(1)),
        ("z.cls", b"0".to_vec()),
        ("y.bmp", bmp(1)),
        ("y.cls", b"1".to_vec()),
    ]);
    room.put("a.tar", &tar(&members));
    let source = room.open("a.tar").unwrap();
    let count = keys(&all(&*source, 0)).len();
    run(&export(Format::WebDataset, 100), &*source, &room.path("out/w")).unwrap();
    let back = all(&*room.open("out/w/00000.tar").unwrap(), 0);
    assert_eq!((keys(&back).len(), errors(&back).len()), (count, 0));
    run(&export(Format::Png, 100), &*source, &room.path("out/g")).unwrap();
    assert_eq!(all(&*room.open("out/g").unwrap(), 0).iter().flatten().count(), count);
    let above: Vec<String> = files(room.0.path()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(above, ["a.tar"]);
    assert_eq!(fs::read_dir(room.path("out")).unwrap().count(), 2);
}

#[test]
fn broken_pictures_are_left_out_and_large_ones_shrunk() {
    let room = Room::new();
    room.put("p/a.bmp", b"BM no picture");
    let drawn = open("scenes:3:side=64", &Options::default()).unwrap();
    let small = Export { side: Some(16), ..export(Format::WebDataset, 10) };
    run(&small, &*drawn, &room.path("s")).unwrap();
    let back = all(&*room.open("s/00000.tar").unwrap(), 0);
    let picture = back[0].as_ref().unwrap().clone().decode(&Limits::default()).unwrap().picture;
    assert_eq!((picture.width, picture.height), (16, 16));
    assert_eq!(keys(&back).len(), 3);
    fs::write(room.path("p/b.bmp"), bmp(3)).unwrap();
    let source = room.open("p").unwrap();
    let done = run(&export(Format::Parquet, 10), &*source, &room.path("o")).unwrap();
    assert_eq!((done.samples, done.skipped.count), (1, 1));
    assert!(done.skipped.first[0].0.contains("a.bmp"));
    let strict = Export { strict: true, ..export(Format::Parquet, 10) };
    assert!(run(&strict, &*source, &room.path("t")).is_err());
    assert!(!room.path("t/00000.parquet").exists());
}
