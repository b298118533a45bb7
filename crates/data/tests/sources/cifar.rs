//! CIFAR-10 from folders and archives.

use crate::*;

/// `count` records; record i has label i % 10 and the colour (i, i + 1, i + 2).
fn records(first: usize, count: usize) -> Vec<u8> {
    (first..first + count)
        .flat_map(|i| {
            let plane = |c: usize| vec![(i + c) as u8; 1024];
            [vec![(i % 10) as u8], plane(0), plane(1), plane(2)].concat()
        })
        .collect()
}

#[test]
fn cifar_comes_from_folders_and_archives() {
    let room = Room::new();
    let names =
        b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n".to_vec();
    for i in 1..=5 {
        room.put(&format!("c/data_batch_{i}.bin"), &records(10 * i, 3));
    }
    room.put("c/test_batch.bin", &records(0, 4));
    room.put("c/batches.meta.txt", &names);
    let bytes = tar(&[
        ("cifar-10-batches-bin/batches.meta.txt", names.clone()),
        ("cifar-10-batches-bin/train_batch.bin", records(10, 15)),
        ("cifar-10-batches-bin/test_batch.bin", records(0, 4)),
    ]);
    room.put("c.tar", &bytes);
    room.put("c.tar.gz", &gzip(&bytes));
    for name in ["c", "c.tar", "c.tar.gz"] {
        let test = room.open(&format!("cifar10:{name}")).unwrap();
        assert_eq!((test.len(), test.classes().unwrap()[3].as_str()), (Some(4), "cat"));
        let sample = test.get(2).unwrap().unwrap();
        assert_eq!((sample.key.as_str(), sample.label), ("test/00002", Some(2)));
        let picture = sample.decode(&Limits::default()).unwrap().picture;
        assert_eq!(picture, Picture::filled(32, 32, [2, 3, 4]));
        positions_agree(&*test);
        let train = room.open(&format!("cifar10:{name}#train")).unwrap();
        assert_eq!(train.len(), Some(15));
        positions_agree(&*train);
    }
    assert!(room.refuses("cifar10:c#dev").contains("#train"));
    assert!(room.refuses("cifar10:absent").contains("no such"));
    room.put("short/test_batch.bin", &records(0, 2)[..4000]);
    assert!(room.refuses("cifar10:short").contains("3073"));
    assert!(room.refuses("cifar10:short#train").contains("data_batch_1.bin"));
    let mut wrong = records(0, 2);
    wrong[3073] = 77;
    room.put("wrong/test_batch.bin", &wrong);
    let found = all(&*room.open("cifar10:wrong").unwrap(), 0);
    assert_eq!(keys(&found), ["test/00000"]);
    assert!(errors(&found)[0].contains("label 77"));
}
