//! What the corpus promises as a whole.

#![allow(clippy::unwrap_used)]

use super::{catalogue::held_pair, scene::Kind, *};
use sha2::{Digest, Sha256};

fn scenes(text: &str) -> Scenes {
    Scenes::parse(text).unwrap_or_else(|e| panic!("{e}"))
}

fn digest(scenes: &Scenes) -> String {
    let mut hash = Sha256::new();
    for index in 0..scenes.config.count {
        hash.update(scenes.caption(index).unwrap());
        hash.update(&scenes.picture(index).unwrap().rgb);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn scenes_do_not_change() {
    // Models in use were trained on these very pictures: a change here needs a reason.
    let texts =
        ["scenes:40", "scenes:40:side=48,part=scene", "scenes:40:part=relations-held,seed=3"];
    let digests = texts.map(|text| digest(&scenes(text)));
    assert_eq!(digests, ["4c88db8863477593", "fd309d79a88148e2", "0ebecf5760f08515"]);
}

#[test]
fn a_scene_depends_on_nothing_but_seed_and_index() {
    let one = scenes("scenes:64:side=32");
    let forward: Vec<_> = (0..64).map(|i| (one.picture(i), one.caption(i))).collect();
    let other = scenes("scenes:1_000:side=32");
    std::thread::scope(|scope| {
        for start in 0..4 {
            let (other, forward) = (&other, &forward);
            scope.spawn(move || {
                for i in (0..16).rev().map(|n| 4 * n + start) {
                    assert_eq!((other.picture(i), other.caption(i)), forward[i as usize]);
                }
            });
        }
    });
    assert_ne!(scenes("scenes:1:side=32,seed=1").picture(0), forward[0].0);
    assert_eq!(one.picture(64), None);
}

#[test]
fn the_source_gives_what_the_parts_give() {
    let one = scenes("scenes:20:part=plain,side=16");
    assert_eq!((one.len(), one.classes().map(<[_]>::len)), (Some(20), Some(210)));
    let all: Vec<_> = one.open(5).unwrap().map(Result::unwrap).collect();
    assert_eq!(all.len(), 15);
    for (sample, index) in all.iter().zip(5..) {
        assert_eq!((sample.index, sample.label), (index, Some(index as usize)));
        assert_eq!(sample.caption, one.caption(index));
        let RawPicture::Drawn(draw) = &sample.picture else { panic!("not drawn") };
        assert_eq!(draw().ok(), one.picture(index));
        assert_eq!(one.get(index).unwrap().unwrap().key, sample.key);
    }
    assert!(one.get(20).is_none());
}

#[test]
fn training_draws_nothing_that_is_kept_for_tests() {
    let (training, catalogue) = (scenes("scenes:20000"), Catalogue::get());
    let (mut pairs, mut tests) = (0, 0);
    for index in 0..20_000 {
        let scene = training.scene(index);
        for object in &scene.objects {
            assert_ne!(object.style, catalogue.held_out);
            assert!(catalogue.drawings(object.name, object.style, false).contains(&object.emoji));
            tests += usize::from(catalogue.names[object.name].test.is_some());
        }
        if let (Kind::Two { .. }, [a, b]) = (scene.kind, scene.objects.as_slice()) {
            let [a, b] = [a, b].map(|o| catalogue.names[o.name].name.as_str());
            assert!(a != b && !held_pair(a, b));
            pairs += 1;
        }
    }
    assert!((5_500..6_500).contains(&pairs) && tests > 10_000, "{pairs} {tests}");
}

#[test]
fn tests_draw_what_they_are_for() {
    let catalogue = Catalogue::get();
    for (part, style) in [("plain", true), ("scene", true), ("instyle", false), ("withheld", false)]
    {
        let test = scenes(&format!("scenes:part={part}"));
        for index in 0..test.config.count {
            let scene = test.scene(index);
            let [object] = scene.objects.as_slice() else { panic!("one object") };
            assert_eq!(object.style == catalogue.held_out, style);
            let drawings = catalogue.drawings(object.name, object.style, part == "withheld");
            assert!(drawings.contains(&object.emoji), "{part} {index}");
            assert!(catalogue.names[object.name].test.is_some());
        }
    }
    for (part, held) in [("relations-seen", false), ("relations-held", true)] {
        let test = scenes(&format!("scenes:part={part}"));
        for index in 0..test.config.count {
            let [a, b] = [0, 1].map(|i| test.scene(index).objects[i].name);
            assert_eq!(held_pair(&catalogue.names[a].name, &catalogue.names[b].name), held);
        }
    }
    let retrieval = scenes("scenes:part=retrieval");
    let captions: HashSet<_> = (0..200).filter_map(|i| retrieval.caption(i)).collect();
    assert_eq!(captions.len(), 200);
    let demo = Scenes::embedded().unwrap();
    assert_eq!((demo.name(), demo.len()), ("embedded", Some(420)));
    for index in 0..420 {
        let held = demo.scene(index).objects[0].style == catalogue.held_out;
        assert_eq!(held, index >= 210);
    }
}

#[test]
fn relations_are_true_and_their_exchange_is_false() {
    let test = scenes("scenes:part=relations-seen");
    for index in 0..300 {
        let (right, exchanged) = test.relation(index).unwrap();
        assert_eq!(test.caption(index).as_ref(), Some(&right));
        let scene = test.scene(index);
        let name = |i: usize| Catalogue::get().names[scene.objects[i].name].name.as_str();
        let words = [
            ("left of", 0),
            ("right of", 0),
            ("above", 1),
            ("over", 1),
            ("below", 1),
            ("under", 1),
        ];
        let (word, axis) = *words.iter().find(|(w, _)| right.contains(&format!(" {w} "))).unwrap();
        let (subject, _) = right.split_once(word).unwrap();
        // One name may be part of the other ("bat" in "bathtub"): ask for whole words.
        let first = usize::from(!subject.split(' ').any(|w| w == name(0)));
        let at = |i: usize| [scene.objects[i].x, scene.objects[i].y][axis];
        let before = at(first) < at(1 - first);
        assert_eq!(before, matches!(word, "left of" | "above" | "over"), "{right}");
        assert!(exchanged != right && exchanged.contains(word), "{right} / {exchanged}");
    }
    assert!(scenes("scenes:1:part=plain").relation(0).is_none());
}

#[test]
fn captions_follow_the_grammar() {
    let training = scenes("scenes:20000");
    let mut seen = HashSet::new();
    for index in 0..20_000 {
        let caption = training.caption(index).unwrap();
        let words: Vec<&str> = caption.split(' ').collect();
        assert!((1..=20).contains(&words.len()), "{caption}");
        let odd = |c: char| !(c.is_ascii_lowercase() || " -,'.".contains(c) || c.is_ascii_digit());
        assert!(caption.contains(", ") || !caption.contains(odd), "{caption}");
        for pair in words.windows(2) {
            let vowel = pair[1].starts_with(['a', 'e', 'i', 'o', 'u']);
            let like_you = pair[1].starts_with("uni") || pair[1].starts_with("ufo");
            match pair[0] {
                "a" => assert!(!vowel || like_you, "{caption}"),
                "an" => {
                    assert!(vowel || pair[1].starts_with("hour") || pair[1] == "x-ray", "{caption}")
                }
                _ => {}
            }
        }
        seen.insert(caption);
    }
    assert!(seen.len() > 17_000, "{}", seen.len());
}

#[test]
fn every_test_name_is_drawn_in_the_styles_that_draw_everything() {
    let names = test_names();
    assert_eq!((names.len(), styles().len()), (210, 8));
    assert!(super::names().len() > 600);
    for name in &names {
        for style in ["noto", "fluent-flat", "fluent-modern", "twemoji"] {
            let picture = sprite(name, style, 64, [255, 0, 255]);
            let picture = picture.unwrap_or_else(|| panic!("{name} in {style}"));
            assert!(
                picture.rgb.chunks(3).filter(|p| **p != [255, 0, 255]).count() > 300,
                "{name} in {style}"
            );
        }
        let place = Catalogue::get().names.iter().position(|n| n.name == *name).unwrap();
        for hand in [&[0][..], &[1, 2], &[Catalogue::get().held_out]] {
            let known = |&s: &usize| !Catalogue::get().drawings(place, s, false).is_empty();
            let withheld = |&s: &usize| !Catalogue::get().drawings(place, s, true).is_empty();
            assert!(hand.iter().any(|s| known(s) || withheld(s)), "{name}");
        }
        assert!([0, 1, 2].iter().any(|&s| !Catalogue::get().drawings(place, s, false).is_empty()));
    }
    assert_eq!(sprite("no such thing", "noto", 64, [0; 3]), None);
    assert_eq!(sprite("cat", "noto", 0, [0; 3]), None);
}

#[test]
fn a_style_that_draws_some_things_only_shows_those() {
    let catalogue = Catalogue::get();
    for (style, least) in [("blob", 160), ("emojione", 160), ("fxemoji", 130), ("streamline", 100)]
    {
        let some = scenes(&format!("scenes:400:part=instyle,style={style}"));
        let mut shown = HashSet::new();
        for index in 0..400 {
            let scene = some.scene(index);
            let object = &scene.objects[0];
            assert_eq!(styles()[object.style], style);
            assert!(catalogue.drawings(object.name, object.style, false).contains(&object.emoji));
            shown.insert(object.name);
        }
        assert!(shown.len() >= least, "{style}: {}", shown.len());
    }
}

#[test]
fn about_one_drawing_in_twenty_is_withheld() {
    let names = &Catalogue::get().names;
    let count = |list: fn(&catalogue::Name) -> &Vec<Vec<usize>>| -> usize {
        names.iter().flat_map(|n| &list(n)[..3]).map(Vec::len).sum()
    };
    let (known, withheld) = (count(|n| &n.known), count(|n| &n.withheld));
    let share = withheld as f32 / (known + withheld) as f32;
    assert!((0.03..0.07).contains(&share), "{share}");
    assert!(names.iter().all(|n| n.withheld[3..].iter().all(Vec::is_empty)));
}

#[test]
fn other_words_name_nothing_else() {
    let names: HashSet<String> = super::names().into_iter().collect();
    for (name, others) in words::SYNONYMS {
        assert!(names.contains(name), "{name}");
        assert!(others.iter().all(|other| !names.contains(*other)), "{name}");
    }
}

#[test]
fn any_size_and_any_look_can_be_painted() {
    for side in [8, 33, 300] {
        let wild = scenes(&format!("scenes:100:side={side},looks=10"));
        for index in 0..100 {
            let picture = wild.picture(index).unwrap();
            assert_eq!((picture.width, picture.height), (side, side));
            assert_eq!(picture.rgb.len(), (3 * side * side) as usize);
        }
    }
}

#[test]
fn licences_travel_with_the_pictures() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/LICENSES");
    for (file, words) in [
        ("Noto-Apache-2.0.txt", "Apache License"),
        ("Fluent-MIT.txt", "Microsoft Corporation"),
        ("CC-BY-4.0.txt", "Twitter, Inc"),
        ("emojibase-MIT-and-Unicode.txt", "UNICODE LICENSE"),
        ("emoji-datasource-MIT.txt", "Cal Henderson"),
    ] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
        assert!(text.contains(words) && text.len() > 1000, "{file}");
    }
}
