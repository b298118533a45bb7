//! Pictures as files.

use crate::*;

#[test]
fn folders_are_read_plainly_or_as_classes() {
    let room = Room::new();
    for name in ["plain/b.bmp", "plain/sub/a.BMP", "plain/a.bmp", "plain/.hidden.bmp"] {
        room.put(name, &bmp(1));
    }
    room.put("plain/a.txt", b" a caption \n");
    let plain = room.open("plain").unwrap();
    assert_eq!(keys(&all(&*plain, 0)), ["a.bmp", "b.bmp", "sub/a.BMP"]);
    assert_eq!(all(&*plain, 0)[0].as_ref().unwrap().caption.as_deref(), Some("a caption"));
    assert!(plain.classes().is_none());
    positions_agree(&*plain);

    for name in ["classes/dog/1.bmp", "classes/cat/2.bmp", "classes/cat/deep/3.bmp"] {
        room.put(name, &bmp(2));
    }
    let classes = room.open("classes").unwrap();
    assert_eq!(classes.classes().unwrap(), ["cat", "dog"]);
    let labels: Vec<_> = all(&*classes, 0).iter().flatten().map(|s| s.label).collect();
    assert_eq!(labels, [Some(0), Some(0), Some(1)]);
    positions_agree(&*classes);
    let options = Options { layout: Layout::Plain, ..Options::default() };
    assert!(open(&room.spell("classes"), &options).unwrap().classes().is_none());
    let options = Options { layout: Layout::Classes, ..Options::default() };
    assert!(open(&room.spell("plain"), &options).is_err());

    fs::create_dir(room.path("empty")).unwrap();
    assert!(room.refuses("empty").contains("empty folder"));
    room.put("shards/000.tar", &tar(&[]));
    assert!(room.refuses("shards").contains("archives"));
}

#[cfg(unix)]
#[test]
fn links_in_circles_end() {
    let room = Room::new();
    room.put("a/x.bmp", &bmp(1));
    std::os::unix::fs::symlink(room.path("a"), room.path("a/again")).unwrap();
    std::os::unix::fs::symlink(room.path("nowhere"), room.path("a/lost.bmp")).unwrap();
    assert_eq!(keys(&all(&*room.open("a").unwrap(), 0)), ["x.bmp"]);
}

#[test]
fn one_picture_is_a_source_even_if_it_is_broken() {
    let room = Room::new();
    room.put("x.bmp", &bmp(9));
    room.put("noname", &bmp(8));
    room.put("broken.jpg", b"not a picture");
    for (name, value) in [("x.bmp", 9), ("noname", 8)] {
        let source = room.open(name).unwrap();
        assert_eq!(source.len(), Some(1));
        assert_eq!(colour(all(&*source, 0)[0].as_ref().unwrap()), value);
    }
    let source = room.open("broken.jpg").unwrap();
    let mut loader = Loader::new(&*source, LoaderOptions::default(), |s: RawSample| {
        Ok(s.decode(&Limits::default())?.key)
    })
    .unwrap();
    assert!(loader.next().is_none());
    assert!(loader.skipped().first[0].1.contains("broken.jpg"));
}
