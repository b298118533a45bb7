//! Spellings that are wrong.

use crate::*;

#[test]
fn wrong_spellings_say_what_would_be_right() {
    let room = Room::new();
    room.put("shard-000.tar", &tar(&[]));
    room.put("table.xyz", b"1");
    room.put("a.zip", b"PK\x03\x04");
    let told = room.refuses("shard-00.tar");
    assert!(told.contains("did you mean shard-000.tar"), "{told}");
    assert!(room.refuses("nowhere/x.tar").contains("no folder"));
    assert!(room.refuses("shard-{000..001}.tar").contains("shard-001.tar"));
    assert!(room.refuses("shard-{a..b}.tar").contains("range"));
    assert!(room.refuses("table.xyz").contains("expected"));
    let refuses = |s: &str| open(s, &Options::default()).map(|s| s.name().to_owned()).unwrap_err();
    assert!(refuses("cifar100:x").to_string().contains("did you mean cifar10"));
    assert!(refuses("gs://bucket/x.tar").to_string().contains("s3://"));
    assert!(refuses("s3:///a.tar").to_string().contains("s3://HOST/PATH"));
    assert!(refuses("https://host/a.zip").to_string().contains(".parquet"));
    assert!(refuses("https://user:word@host/a.tar").to_string().contains("password"));
    assert!(refuses("https://host/a.tar?sign=1").to_string().contains("query"));
    assert!(refuses("https://host/folder/").to_string().contains("spell them out"));
    assert!(refuses("").to_string().contains("empty"));
    assert!(refuses("cifra10:x").is_fatal());
    room.put("b.tar", b"BZh91AY");
    assert!(room.refuses("b.tar").contains("bzip2"));
    room.put("e.tar", b"");
    assert!(room.refuses("e.tar").contains("empty"));
    room.put("junk.tar", &[7; 2000]);
    let found = all(&*room.open("junk.tar").unwrap(), 0);
    assert!(errors(&found)[0].contains("tar header"), "{:?}", errors(&found));
    assert!(Path::new(&room.path("a.zip")).exists());
}
