//! WebDataset archives: plain, packed, damaged, hostile.

use crate::*;

#[test]
fn a_shard_yields_its_samples_plain_and_packed() {
    let room = Room::new();
    let bytes = tar_of(&pairs(0, 7));
    room.put("a.tar", &bytes);
    room.put("b.tar.gz", &gzip(&bytes));
    // Content decides, not the name.
    room.put("c.tar", &gzip(&bytes));
    for name in ["a.tar", "b.tar.gz", "c.tar"] {
        let source = room.open(name).unwrap();
        let found = all(&*source, 0);
        assert_eq!(found.len(), 7, "{name}");
        let sample = found[5].as_ref().unwrap();
        assert_eq!((sample.key.as_str(), sample.label), ("0005", Some(2)));
        assert_eq!(sample.caption.as_deref(), Some("picture 5"));
        assert_eq!(colour(sample), 5);
        assert_eq!(source.len(), Some(7), "{name}");
        positions_agree(&*source);
    }
    let fresh = room.open("a.tar").unwrap();
    assert_eq!(fresh.len(), Some(7));
    assert_eq!(fresh.get(3).unwrap().unwrap().key, "0003");
    assert_eq!(room.open("b.tar.gz").unwrap().len(), None);
    assert!(room.open("b.tar.gz").unwrap().get(0).is_none());
}

#[test]
fn shards_follow_each_other_and_damage_costs_only_what_lies_behind_it() {
    let room = Room::new();
    room.put("s/000.tar", &tar_of(&pairs(0, 4)));
    let second = tar_of(&pairs(4, 4));
    // Within the picture of the third sample of the second shard.
    let cut = 2 * 3 * 1024 + 512 + 20;
    room.put("s/001.tar", &second[..cut]);
    room.put("s/002.tar", &tar_of(&pairs(8, 4)));
    let source = room.open("s/{000..002}.tar").unwrap();
    let found = all(&*source, 0);
    let expected = [
        "000/0000", "000/0001", "000/0002", "000/0003", "001/0004", "001/0005", "002/0008",
        "002/0009", "002/0010", "002/0011",
    ];
    assert_eq!(keys(&found), expected);
    let told = errors(&found);
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("001.tar") && told[0].contains("truncated"), "{}", told[0]);
    assert!(told[0].contains(&format!("{}", cut)), "{}", told[0]);
    assert_eq!(source.len(), Some(10));
    // Behind the damage it is not told again.
    assert_eq!(errors(&all(&*source, 7)).len(), 0);
    for (index, key) in expected.iter().enumerate() {
        assert_eq!(source.get(index as u64).unwrap().unwrap().key, *key);
        assert_eq!(keys(&all(&*room.open("s/{000..002}.tar").unwrap(), index as u64))[0], *key);
    }
    // The same damage under gzip, and damage of the packing itself.
    let packed = gzip(&second);
    for broken in [gzip(&second[..cut]), packed[..packed.len() / 2].to_vec(), {
        let mut flipped = packed.clone();
        let middle = flipped.len() / 2;
        flipped[middle..middle + 8].fill(0xff);
        flipped
    }] {
        room.put("s/001.tar", &broken);
        let found = all(&*room.open("s/{000..002}.tar").unwrap(), 0);
        assert_eq!(errors(&found).len(), 1, "{:?}", errors(&found));
        assert_eq!(keys(&found).iter().filter(|key| key.starts_with("002/")).count(), 4);
    }
    // Through the loader: counted, named, and fatal only on demand.
    let keys_of = |strict| {
        let options = LoaderOptions { strict, threads: 2, ..LoaderOptions::default() };
        Loader::new(&*source, options, |s: RawSample| Ok(s.decode(&Limits::default())?.key))
            .unwrap()
    };
    room.put("s/001.tar", &second[..cut]);
    let mut lenient = keys_of(false);
    assert_eq!(lenient.by_ref().map(Result::unwrap).count(), 10);
    assert!(lenient.skipped().first[0].0.ends_with("001.tar"));
    assert!(keys_of(true).any(|result| result.is_err()));
}

#[test]
fn an_archive_without_end_mark_gives_all_it_has_and_says_so() {
    let room = Room::new();
    let bytes = tar_of(&pairs(0, 2));
    room.put("a.tar", &bytes[..2 * 3 * 1024]);
    let found = all(&*room.open("a.tar").unwrap(), 0);
    assert_eq!(keys(&found), ["0000", "0001"]);
    assert!(errors(&found)[0].contains("end mark"), "{:?}", errors(&found));
}

#[test]
fn hostile_members_stay_keys_or_become_bad_samples() {
    let room = Room::new();
    let text = |s: &str| s.as_bytes().to_vec();
    room.put(
        "a.tar",
        &tar(&[
            ("../../etc/evil.bmp", bmp(1)),
            ("/etc/abs.bmp", bmp(2)),
            ("./dot/./b.bmp", bmp(3)),
            ("esc\x1b[2J.bmp", bmp(4)),
            ("._0001.bmp", bmp(5)),
            ("notes.tsv", text("x")),
            ("nopic.txt", text("words")),
            ("badcls.bmp", bmp(6)),
            ("badcls.cls", text("seven")),
            ("badutf.bmp", bmp(7)),
            ("badutf.txt", vec![0xff, 0xfe]),
            ("badjson.bmp", bmp(8)),
            ("badjson.json", text("{\"caption\": ")),
            ("json.bmp", bmp(9)),
            ("json.json", text("{\"caption\": \"from json\", \"width\": 3}")),
            ("twice.txt", text("a")),
            ("twice.txt", text("b")),
            ("mask.bmp", bmp(10)),
            ("mask.seg.bmp", bmp(11)),
            ("UPPER.BMP", bmp(12)),
        ]),
    );
    let source = room.open("a.tar").unwrap();
    let found = all(&*source, 0);
    assert_eq!(keys(&found), ["etc/abs", "dot/b", "esc\\u{1b}[2J", "json", "mask", "UPPER"]);
    let told = errors(&found);
    let expected = [
        ("evil", ".."),
        ("nopic", "no picture"),
        ("badcls", "seven"),
        ("badutf", "UTF-8"),
        ("badjson", ".json"),
        ("twice", "two members"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for (message, (key, reason)) in told.iter().zip(expected) {
        assert!(message.contains(key) && message.contains(reason), "{message}");
        assert!(!message.contains('\x1b'));
    }
    assert!(found.iter().filter_map(|f| f.as_ref().err()).all(|error| !error.is_fatal()));
    // Bad samples hold their positions.
    let indices: Vec<u64> = found.iter().flatten().map(|s| s.index).collect();
    assert_eq!(indices, [1, 2, 3, 8, 10, 11]);
    let json = found.iter().flatten().find(|s| s.key == "json").unwrap();
    assert_eq!(json.caption.as_deref(), Some("from json"));
    assert_eq!(source.get(8).unwrap().unwrap().caption.as_deref(), Some("from json"));
    assert!(source.get(0).unwrap().is_err());
    assert!(!room.path("../../etc/evil.bmp").exists());
}

#[test]
fn a_member_that_claims_too_much_is_one_bad_sample() {
    let room = Room::new();
    room.put("a.tar", &tar(&[("big.bmp", vec![0; 5000]), ("ok.bmp", bmp(1))]));
    let options =
        Options { limits: Limits { bytes: 1000, ..Limits::default() }, ..Options::default() };
    let source = open(&room.spell("a.tar"), &options).unwrap();
    let found = all(&*source, 0);
    assert_eq!(keys(&found), ["ok"]);
    assert!(errors(&found)[0].contains("5000 bytes"));

    // A size of eight exabytes in a header allocates nothing.
    let mut bytes = tar(&[("big.bmp", bmp(0))]);
    bytes[124..136]
        .copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    bytes[148..156].fill(b' ');
    let sum: u32 = bytes[..512].iter().map(|&b| u32::from(b)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    for bytes in [bytes.clone(), gzip(&bytes)] {
        room.put("b.tar", &bytes);
        let found = all(&*room.open("b.tar").unwrap(), 0);
        assert_eq!((keys(&found).len(), errors(&found).len()), (0, 1), "{:?}", errors(&found));
    }
}

#[test]
fn long_names_and_pax_headers_are_understood_within_limits() {
    let room = Room::new();
    let long = format!("{}/x.bmp", "d".repeat(150));
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(58);
    builder.append_data(&mut header, &long, bmp(1).as_slice()).unwrap();
    builder.append_pax_extensions([("path", "pax/ü.bmp".as_bytes())]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path("short.bmp").unwrap();
    header.set_size(58);
    header.set_cksum();
    builder.append(&header, bmp(2).as_slice()).unwrap();
    room.put("a.tar", &builder.into_inner().unwrap());
    let source = room.open("a.tar").unwrap();
    let long_key = format!("{}/x", "d".repeat(150));
    assert_eq!(keys(&all(&*source, 0)), [long_key.as_str(), "pax/ü"]);
    positions_agree(&*source);

    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(3 << 20);
    header.set_cksum();
    builder.append(&header, vec![b'a'; 3 << 20].as_slice()).unwrap();
    room.put("b.tar", &builder.into_inner().unwrap());
    assert!(errors(&all(&*room.open("b.tar").unwrap(), 0))[0].contains("extension header"));
}

#[test]
fn class_lists_give_labels_to_folders() {
    let room = Room::new();
    let list = b"cat\nhawksbill turtle\n".to_vec();
    let members =
        [("001/a.bmp", bmp(1)), ("000/b.bmp", bmp(2)), ("cat/c.bmp", bmp(3)), ("7/d.bmp", bmp(4))];
    let mut with_list = vec![("classes.txt", list.clone())];
    with_list.extend(members.clone());
    room.put("inside/a.tar", &tar(&with_list));
    room.put("beside/a.tar", &tar(&members));
    room.put("beside/classnames.txt", &list);
    room.put("none/deep/a.tar", &tar(&members));
    for name in ["inside/a.tar", "beside/a.tar"] {
        let source = room.open(name).unwrap();
        assert_eq!(source.classes().unwrap(), ["cat", "hawksbill turtle"]);
        let found = all(&*source, 0);
        let labels: Vec<_> = found.iter().flatten().map(|s| s.label).collect();
        assert_eq!(labels, [Some(1), Some(0), Some(0)]);
        assert!(errors(&found)[0].contains("label 7"));
    }
    let without = room.open("none/deep/a.tar").unwrap();
    assert!(without.classes().is_none());
    assert!(all(&*without, 0).iter().flatten().all(|s| s.label.is_none()));
}
