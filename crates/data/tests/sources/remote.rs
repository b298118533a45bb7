//! Sources behind URLs, from a server of our own.

use crate::{server::Server, *};

fn opened(url: &str) -> Result<Arc<dyn Source>, DataError> {
    open(url, &Options::default())
}

fn refusal(url: &str) -> String {
    opened(url).map(|source| source.name().to_owned()).unwrap_err().to_string()
}

#[test]
fn archives_are_read_through_a_server() {
    let server = Server::start();
    for (number, first) in [(0, 0), (1, 5), (2, 10)] {
        server.put(&format!("/d/{number:03}.tar"), &tar_of(&pairs(first, 5)));
    }
    server.put("/d/packed.tar.gz", &gzip(&tar_of(&pairs(0, 4))));
    let source = opened(&server.url("/d/{000..002}.tar")).unwrap();
    assert_eq!(source.len(), None);
    let found = all(&*source, 0);
    assert_eq!(found.len(), 15);
    let sample = found[7].as_ref().unwrap();
    assert_eq!((sample.key.as_str(), sample.index), ("001/0007", 7));
    assert_eq!((sample.caption.as_deref(), colour(sample)), (Some("picture 7"), 7));
    assert_eq!(keys(&all(&*source, 9)), keys(&found)[9..]);
    let packed = opened(&server.url("/d/packed.tar.gz")).unwrap();
    assert_eq!(keys(&all(&*packed, 0)), ["0000", "0001", "0002", "0003"]);
}

#[test]
fn a_server_that_fails_is_asked_again_and_then_named() {
    let server = Server::start();
    server.put("/a.tar", &tar_of(&pairs(0, 3)));
    server.put("/b.tar", &tar_of(&pairs(3, 3)));
    server.fail(2);
    let source = opened(&server.url("/a.tar")).unwrap();
    server.break_off(1);
    assert_eq!(keys(&all(&*source, 0)).len(), 3);
    server.fail(1000);
    let told = refusal(&server.url("/b.tar"));
    assert!(told.contains("b.tar") && told.contains("500") && told.contains("tried 5"), "{told}");
    // In the middle of a source it costs what cannot be had, and says where.
    let told = errors(&all(&*source, 0));
    assert!(told.len() == 1 && told[0].contains("500"), "{told:?}");
    server.fail(0);
    let told = refusal(&server.url("/absent.tar"));
    assert!(told.contains("absent.tar: no such file"), "{told}");
    let nobody = refusal("http://127.0.0.1:9/a.tar");
    assert!(nobody.contains("tried 5 times"), "{nobody}");
}

#[test]
fn a_shard_that_disappears_or_changes_costs_its_samples() {
    let server = Server::start();
    for (number, first) in [(0, 0), (1, 2), (2, 4)] {
        server.put(&format!("/{number}.tar"), &tar_of(&pairs(first, 2)));
    }
    let source = opened(&server.url("/{0..2}.tar")).unwrap();
    server.remove("/1.tar");
    server.put("/2.tar", &tar_of(&pairs(40, 2)));
    let found = all(&*source, 0);
    assert_eq!(keys(&found), ["0/0000", "0/0001"]);
    let told = errors(&found);
    assert!(told[0].contains("1.tar") && told[0].contains("no such file"), "{told:?}");
    assert!(told[1].contains("2.tar") && told[1].contains("changed"), "{told:?}");
    // The ends of a range are looked at when it is opened.
    assert!(refusal(&server.url("/{0..3}.tar")).contains("3.tar"));
}

#[test]
fn tables_name_pictures_beside_them_and_nowhere_else() {
    let server = Server::start();
    server.put("/t/x/1.bmp", &bmp(7));
    server.put("/secret.bmp", &bmp(9));
    let text = "image,caption\nx/1.bmp,one\n../secret.bmp,two\n/secret.bmp,three\n\
                file:///etc/passwd,four\nx/2.bmp,five\n";
    server.put("/t/pairs.csv", text.as_bytes());
    let source = opened(&server.url("/t/pairs.csv")).unwrap();
    assert_eq!(source.len(), Some(5));
    let found = all(&*source, 0);
    assert_eq!(colour(found[0].as_ref().unwrap()), 7);
    assert_eq!(found[0].as_ref().unwrap().caption.as_deref(), Some("one"));
    for (number, expected) in [(1, "beside it"), (2, "beside it"), (3, "beside it"), (4, "no such")]
    {
        let sample = found[number].as_ref().unwrap().clone();
        let told = sample.decode(&Limits::default()).unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn parquet_files_are_read_by_parts() {
    let (server, room) = (Server::start(), Room::new());
    let name = crate::parquet_files::pictures(&room, "p", 40);
    let bytes = fs::read(room.path(&name)).unwrap();
    server.put("/p/00000.parquet", &bytes);
    let here = room.open(&name).unwrap();
    let there = opened(&server.url("/p/00000.parquet")).unwrap();
    assert_eq!((there.len(), there.classes()), (Some(40), here.classes()));
    let (found, expected) = (all(&*there, 0), all(&*here, 0));
    assert_eq!(keys(&found), keys(&expected));
    for (a, b) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert_eq!((&a.caption, a.label, colour(a)), (&b.caption, b.label, colour(b)));
    }
    assert_eq!(keys(&all(&*there, 33)), keys(&expected)[33..]);
    assert!(there.get(3).is_none());
    // Only parts are asked for.
    assert!(!server.requests().iter().any(|r| r.starts_with("PUT")));
}

#[test]
fn local_urls_are_paths() {
    let room = Room::new();
    room.put("a b.tar", &tar_of(&pairs(0, 2)));
    let path = room.path("a b.tar").display().to_string();
    let source = opened(&format!("file://{}", path.replace(' ', "%20"))).unwrap();
    assert_eq!(keys(&all(&*source, 0)), ["0000", "0001"]);
    assert!(refusal("file://host/x.tar").contains("file:///PATH"));
}
