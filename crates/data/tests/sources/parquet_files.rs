//! Parquet files: ours, those of others, and broken ones.

use crate::*;
use ::parquet::{
    basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, Int64Type},
    file::{
        properties::WriterProperties, reader::FileReader, serialized_reader::SerializedFileReader,
        writer::SerializedFileWriter,
    },
    schema::parser::parse_message_type,
};
use clipguard_data::write::{Column, Export, Format, write_columns};
use std::sync::atomic::AtomicBool;

/// Exports `count` pairs as one Parquet file and says how it is called.
pub(crate) fn pictures(room: &Room, name: &str, count: usize) -> String {
    room.put(&format!("{name}.tar"), &tar_of(&pairs(0, count)));
    let source = room.open(&format!("{name}.tar")).unwrap();
    let export = Export {
        format: Format::Parquet,
        per_shard: 1000,
        side: None,
        limits: Limits::default(),
        threads: 2,
        strict: true,
    };
    let stop = AtomicBool::new(false);
    let done = export.run(&*source, &room.path(name), &stop, || {}, |_| {}).unwrap();
    assert!(done.finished && done.samples == count as u64);
    format!("{name}/00000.parquet")
}

/// Values of one column, with levels.
enum Values {
    Bytes(Vec<Vec<u8>>, Vec<i16>, Vec<i16>),
    Numbers(Vec<i64>),
}

fn bytes(values: &[&[u8]]) -> Values {
    Values::Bytes(values.iter().map(|v| v.to_vec()).collect(), vec![1; values.len()], vec![])
}

/// A Parquet file with one row group.
fn table(schema: &str, packing: Compression, columns: Vec<Values>) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(&format!("message m {{ {schema} }}")).unwrap());
    let properties = WriterProperties::builder().set_compression(packing).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for values in columns {
        let mut column = group.next_column().unwrap().unwrap();
        match values {
            Values::Bytes(values, defined, repeated) => {
                let values: Vec<ByteArray> = values.into_iter().map(ByteArray::from).collect();
                let repeated = (!repeated.is_empty()).then_some(repeated);
                column
                    .typed::<ByteArrayType>()
                    .write_batch(&values, Some(&defined), repeated.as_deref())
                    .unwrap();
            }
            Values::Numbers(values) => {
                column.typed::<Int64Type>().write_batch(&values, None, None).unwrap();
            }
        }
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.into_inner().unwrap()
}

const PAIRS: &str = "OPTIONAL BYTE_ARRAY image; OPTIONAL BYTE_ARRAY text (UTF8);";

#[test]
fn what_is_written_is_read_at_any_position() {
    let room = Room::new();
    let name = pictures(&room, "p", 230);
    let source = room.open(&name).unwrap();
    assert_eq!(source.len(), Some(230));
    assert_eq!(source.classes().unwrap(), ["0", "1", "2"]);
    let original = all(&*room.open("p.tar").unwrap(), 0);
    let found = all(&*source, 0);
    assert_eq!(keys(&found), keys(&original));
    for (a, b) in found.iter().flatten().zip(original.iter().flatten()) {
        assert_eq!((&a.caption, a.label, a.index), (&b.caption, b.label, b.index));
        assert_eq!(colour(a), colour(b));
    }
    // Around the borders of row groups (100 rows) and of what is read at once.
    for start in [0, 1, 15, 16, 17, 99, 100, 101, 199, 215, 229, 230, 231] {
        let part = all(&*source, start);
        assert_eq!(keys(&part), keys(&found)[(start as usize).min(230)..], "{start}");
        if let Some(Ok(sample)) = source.get(start) {
            assert_eq!((sample.index, &sample.key), (start, &part[0].as_ref().unwrap().key));
            assert_eq!(colour(&sample), colour(part[0].as_ref().unwrap()));
        }
    }
    assert!(source.get(230).is_none());
    // Content decides where the name does not.
    fs::copy(room.path(&name), room.path("noname")).unwrap();
    assert_eq!(room.open("noname").unwrap().len(), Some(230));
}

#[test]
fn several_files_are_one_source() {
    let room = Room::new();
    for (number, count) in [(0, 3), (1, 2), (2, 4)] {
        let name = pictures(&room, &format!("p{number}"), count);
        fs::rename(room.path(&name), room.path(&format!("part-{number}.parquet"))).unwrap();
    }
    let source = room.open("part-{0..2}.parquet").unwrap();
    assert_eq!(source.len(), Some(9));
    let found = all(&*source, 0);
    assert_eq!(keys(&found)[2..5], ["part-0/0002", "part-1/0000", "part-1/0001"]);
    positions_agree(&*source);
    assert!(room.refuses("part-{0..3}.parquet").contains("part-3.parquet"));
    assert!(room.refuses("part-4.parquet").contains("did you mean"));
    fs::create_dir(room.path("hf")).unwrap();
    fs::copy(room.path("part-0.parquet"), room.path("hf/a.parquet")).unwrap();
    assert!(room.refuses("hf").contains("1 Parquet files"));
}

#[test]
fn every_bounded_packing_is_read_and_the_others_are_refused() {
    let room = Room::new();
    let pictures: Vec<Vec<u8>> = (0..5).map(bmp).collect();
    let pictures: Vec<&[u8]> = pictures.iter().map(Vec::as_slice).collect();
    let columns = || vec![bytes(&pictures), bytes(&[b"a", b"b", b"c", b"d", b"e" as &[u8]])];
    for packing in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
        Compression::LZ4_RAW,
    ] {
        room.put("a.parquet", &table(PAIRS, packing, columns()));
        let source = room.open("a.parquet").unwrap();
        let found = all(&*source, 0);
        assert_eq!(keys(&found), ["000000", "000001", "000002", "000003", "000004"]);
        assert_eq!(found[3].as_ref().unwrap().caption.as_deref(), Some("d"));
        positions_agree(&*source);
    }
    for (packing, word) in
        [(Compression::BROTLI(BrotliLevel::default()), "brotli"), (Compression::LZ4, "lz4")]
    {
        room.put("a.parquet", &table(PAIRS, packing, columns()));
        let found = all(&*room.open("a.parquet").unwrap(), 0);
        let told = errors(&found);
        assert!(told.len() == 1 && told[0].contains(word), "{told:?}");
        assert!(told[0].contains("expected snappy"), "{told:?}");
    }
}

#[test]
fn columns_of_other_habits_are_understood() {
    let room = Room::new();
    room.put("x/1.bmp", &bmp(1));
    room.put("x/2.bmp", &bmp(2));
    let text = |values: &[&str]| Column::Text(values.iter().map(|v| Some((*v).into())).collect());
    let columns = [
        ("image_path", text(&["x/1.bmp", "x/2.bmp", "x/1.bmp"])),
        ("caption", Column::Text(vec![Some(" one ".into()), None, Some("again".into())])),
    ];
    write_columns(&room.path("a.parquet"), &columns).unwrap();
    let found = all(&*room.open("a.parquet").unwrap(), 0);
    assert_eq!(keys(&found), ["x/1.bmp#0", "x/1.bmp#2"]);
    assert_eq!(found[0].as_ref().unwrap().caption.as_deref(), Some("one"));
    assert_eq!(colour(found[2].as_ref().unwrap()), 1);
    assert!(errors(&found)[0].contains("has no caption"));

    // Captions in lists: the first counts. Labels as text.
    let schema = "OPTIONAL BYTE_ARRAY jpg; OPTIONAL group captions (LIST) { REPEATED group list \
                  { OPTIONAL BYTE_ARRAY element (UTF8); } } OPTIONAL BYTE_ARRAY class (UTF8);";
    let (one, two, three) = (bmp(1), bmp(2), bmp(3));
    let lists = ["a", "b", "c"].map(|text| text.as_bytes().to_vec());
    let file = table(
        schema,
        Compression::SNAPPY,
        vec![
            bytes(&[&one, &two, &three]),
            // [a, b], [none, c], nothing at all.
            Values::Bytes(lists.to_vec(), vec![3, 3, 2, 3, 0], vec![0, 1, 0, 1, 0]),
            bytes(&[b"dog", b"cat", b"dog"]),
        ],
    );
    room.put("b.parquet", &file);
    let source = room.open("b.parquet").unwrap();
    assert_eq!(source.classes().unwrap(), ["cat", "dog"]);
    let found = all(&*source, 0);
    let captions: Vec<_> = found.iter().flatten().map(|s| s.caption.as_deref()).collect();
    assert_eq!(captions, [Some("a"), Some("c"), None]);
    let labels: Vec<_> = found.iter().flatten().map(|s| s.label).collect();
    assert_eq!(labels, [Some(1), Some(0), Some(1)]);
    positions_agree(&*source);
}

#[test]
fn wrong_columns_are_told_with_what_is_there() {
    let room = Room::new();
    let numbers = || Values::Numbers(vec![7]);
    let put = |schema: &str, columns: Vec<Values>| {
        room.put("a.parquet", &table(schema, Compression::SNAPPY, columns));
        room.refuses("a.parquet")
    };
    let one = bmp(1);
    let told = put(
        "OPTIONAL BYTE_ARRAY photo; OPTIONAL BYTE_ARRAY words (UTF8);",
        vec![bytes(&[&one]), bytes(&[b"x"])],
    );
    assert!(told.contains("no column of pictures: it has `photo`, `words`"), "{told}");
    let named = |columns: &str| room.open(&format!("a.parquet#{columns}"));
    assert_eq!(all(&*named("image=photo,caption=words").unwrap(), 0).len(), 1);
    let told = named("image=phto").err().unwrap().to_string();
    assert!(told.contains("did you mean `photo`?"), "{told}");
    assert_eq!(all(&*named("image=photo").unwrap(), 0).iter().flatten().count(), 1);
    let told =
        put("REQUIRED INT64 image; OPTIONAL BYTE_ARRAY text;", vec![numbers(), bytes(&[b"x"])]);
    assert!(told.contains("`image` holds no pictures"), "{told}");
    let told =
        put("OPTIONAL BYTE_ARRAY image; REQUIRED INT64 text;", vec![bytes(&[&one]), numbers()]);
    assert!(told.contains("`text` holds no captions but INT64"), "{told}");
    let told = put(
        "OPTIONAL BYTE_ARRAY image; OPTIONAL BYTE_ARRAY other;",
        vec![bytes(&[&one]), bytes(&[b"x"])],
    );
    assert!(told.contains("no column of captions"), "{told}");
}

#[test]
fn a_broken_row_group_costs_its_rows() {
    let room = Room::new();
    let name = pictures(&room, "p", 250);
    let mut file = fs::read(room.path(&name)).unwrap();
    let reader = SerializedFileReader::new(fs::File::open(room.path(&name)).unwrap()).unwrap();
    let column = reader.metadata().row_group(1).column(1);
    let place = column.data_page_offset() as usize;
    file[place..place + 4].fill(0xff);
    room.put("b.parquet", &file);
    let source = room.open("b.parquet").unwrap();
    let found = all(&*source, 0);
    assert_eq!(keys(&found).len(), 150);
    let told = errors(&found);
    assert!(told.len() == 1 && told[0].contains("row group 1"), "{told:?}");
    assert!(found.iter().filter_map(|f| f.as_ref().err()).all(|error| !error.is_fatal()));
    let after = found.iter().flatten().find(|s| s.index >= 100).unwrap();
    assert_eq!((after.index, after.key.as_str()), (200, "0200"));
    assert!(source.get(150).unwrap().is_err() && source.get(220).unwrap().is_ok());
}

#[test]
fn truncated_files_and_flipped_bytes_are_refused_or_read_but_nothing_breaks() {
    let room = Room::new();
    let one = bmp(1);
    let labels =
        "OPTIONAL BYTE_ARRAY image; OPTIONAL BYTE_ARRAY text (UTF8); REQUIRED INT64 label;";
    let columns = vec![
        bytes(&[&one, &one, &one]),
        bytes(&[b"a", b"b", b"b"]),
        Values::Numbers(vec![1, 2, 1]),
    ];
    let whole = table(labels, Compression::GZIP(GzipLevel::default()), columns);
    room.put("whole.parquet", &whole);
    assert_eq!(keys(&all(&*room.open("whole.parquet").unwrap(), 0)).len(), 3);
    for cut in (0..whole.len()).step_by(7) {
        room.put("a.parquet", &whole[..cut]);
        let told = room.refuses("a.parquet");
        assert!(told.contains("a.parquet: "), "{told}");
    }
    let mut harmless = 0;
    for place in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut flipped = whole.clone();
            flipped[place] ^= flip;
            room.put("a.parquet", &flipped);
            let Ok(source) = room.open("a.parquet") else { continue };
            assert!(source.len().unwrap() <= whole.len() as u64);
            harmless += usize::from(errors(&all(&*source, 0)).is_empty());
        }
    }
    // Most bytes of so small a file are its footer.
    assert!(harmless < 3 * whole.len() * 2 / 3, "{harmless} of {}", 3 * whole.len());
}

#[test]
fn a_page_that_unpacks_to_more_than_it_claims_is_refused() {
    let room = Room::new();
    let large = [bmp(1), vec![0; 1_000_000]].concat();
    let columns = vec![bytes(&[&large]), bytes(&[b"x"])];
    let mut file = table(PAIRS, Compression::GZIP(GzipLevel::default()), columns);
    // A dictionary page comes first: its kind, then the size that it unpacks to.
    assert_eq!((file[4], file[6]), (0x15, 0x15));
    assert!(file[7] & 0x7f >= 2);
    file[7] -= 2;
    room.put("a.parquet", &file);
    let told = errors(&all(&*room.open("a.parquet").unwrap(), 0));
    assert!(told[0].contains("unpacks to more than"), "{told:?}");
}

#[test]
fn a_picture_that_is_too_large_is_one_bad_sample() {
    let room = Room::new();
    let (one, large) = (bmp(1), vec![0; 5000]);
    let columns = vec![bytes(&[&large, &one]), bytes(&[b"x", b"y"])];
    room.put("a.parquet", &table(PAIRS, Compression::SNAPPY, columns));
    let limits = Limits { bytes: 1000, ..Limits::default() };
    let options = Options { limits, ..Options::default() };
    let found = all(&*open(&room.spell("a.parquet"), &options).unwrap(), 0);
    assert_eq!(keys(&found), ["000001"]);
    assert!(errors(&found)[0].contains("5000 bytes"));
}
