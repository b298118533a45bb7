//! Pictures against the reference's arrays, and hostile pictures against what must become of them.
//!
//! The arrays are read from the folder `CLIPGUARD_GOLDEN`, or from `tests/golden` of the workspace.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::excessive_precision)]

use clipguard_data::{
    DataError, Decoded, Fit, Interpolation, Limits, Order, Picture, PictureError, Resize,
};
use safetensors::SafeTensors;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::PathBuf;

fn golden(path: &str) -> PathBuf {
    let root = std::env::var_os("CLIPGUARD_GOLDEN").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden")),
        PathBuf::from,
    );
    root.join("clip").join(path)
}

fn read(path: &str) -> Vec<u8> {
    let path = golden(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(path: &str) -> Value {
    serde_json::from_slice(&read(path)).unwrap()
}

fn decode(name: &str) -> Decoded {
    Picture::decode(&read(&format!("pictures/{name}")), &Limits::default())
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Compares with an array of the reference, exactly. The reference set allows JPEG a tolerance for
/// other decoders' arithmetic; ours is that of libjpeg.
fn compare(arrays: &SafeTensors<'_>, array: &str, found: &Picture) {
    let expected = arrays.tensor(array).unwrap_or_else(|error| panic!("{array}: {error}"));
    let shape = [found.height as usize, found.width as usize, 3];
    assert_eq!(expected.shape(), shape, "{array}");
    let worst = found.rgb.iter().zip(expected.data()).map(|(a, b)| a.abs_diff(*b)).max();
    assert_eq!(worst, Some(0), "{array}");
}

#[test]
fn every_picture_decodes_and_resizes_like_the_reference() {
    let bytes = read("pictures_expect.safetensors");
    let arrays = SafeTensors::deserialize(&bytes).unwrap();
    let index = json("pictures.json");
    let pictures = index["pictures"].as_object().unwrap();
    assert_eq!(pictures.len(), 24);
    let mut compared = 0;
    for (name, facts) in pictures {
        let decoded = decode(name);
        let size = [&facts["size_wh"][0], &facts["size_wh"][1]].map(|v| v.as_u64().unwrap());
        assert_eq!([u64::from(decoded.width), u64::from(decoded.height)], size, "{name}");
        // The reference clips 16-bit grey whenever it converts, we do so in its order only.
        let clips = name.starts_with("gray16");
        let resize = Resize::new(32);
        for (order, suffix) in [(Order::Direct, "direct"), (Order::RgbFirst, "rgb_first")] {
            let same = facts["direct_equals_rgb_first"].as_bool().unwrap();
            let suffix = if same { "direct" } else { suffix };
            if !(clips && order == Order::RgbFirst) {
                let found = resize.decoded(&decoded, order);
                compare(&arrays, &format!("{name}.{suffix}"), &found);
                if order == Order::RgbFirst {
                    assert_eq!(resize.picture(&decoded.to_rgb(order)), found, "{name}");
                }
                compared += 1;
            }
        }
        let array = format!("{name}.decoded_rgb");
        if arrays.names().contains(&array.as_str()) {
            let order = if clips { Order::Direct } else { Order::RgbFirst };
            compare(&arrays, &array, &decoded.to_rgb(order));
            compared += 1;
        }
    }
    let other = |mode, interpolation| Resize { mode, interpolation, ..Resize::new(32) };
    for (suffix, resize) in [
        ("longest", other(Fit::Longest, Interpolation::Bicubic)),
        ("squash", other(Fit::Squash, Interpolation::Bicubic)),
        ("bilinear", other(Fit::Shortest, Interpolation::Bilinear)),
    ] {
        let found = resize.decoded(&decode("rgb_odd.png"), Order::RgbFirst);
        compare(&arrays, &format!("rgb_odd.png.{suffix}"), &found);
        compared += 1;
    }
    // Everything in the file was looked at, but the one array that has been normalised.
    let unshared = arrays.names().len() - 1;
    assert!(compared >= unshared, "{compared} comparisons for {unshared} arrays");
}

/// Small pictures of every way of coding colours (two of which no common writer offers: their
/// headers were patched), made with Pillow 13.0, next to digests of the RGB bytes it decodes them
/// to. They are this project's own, so they are always read from the repository.
#[test]
fn every_kind_of_coding_decodes_to_the_bytes_of_the_reference() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/pictures_exact/");
    let list = std::fs::read_to_string(format!("{folder}SHA256SUMS")).unwrap();
    let mut seen = 0;
    for line in list.lines() {
        let (digest, name) = line.split_once("  ").unwrap();
        let bytes = std::fs::read(format!("{folder}{name}")).unwrap();
        let picture = Picture::decode(&bytes, &Limits::default()).unwrap().into_picture();
        let found: String =
            Sha256::digest(&picture.rgb).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(found, digest, "{name}");
        seen += 1;
    }
    assert_eq!(seen, 20);
}

#[test]
fn pixels_and_normalisation_are_those_of_the_reference() {
    let bytes = read("pictures_expect.safetensors");
    let arrays = SafeTensors::deserialize(&bytes).unwrap();
    let expected: Vec<f32> = arrays
        .tensor("rgb_odd.png.tensor_f32_chw")
        .unwrap()
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let picture = Resize::new(32).decoded(&decode("rgb_odd.png"), Order::RgbFirst);
    let mean = [0.48145466_f32, 0.4578275, 0.40821073];
    let std = [0.26862954_f32, 0.26130258, 0.27577711];
    let planes = picture.to_unit_planes();
    assert_eq!(planes.len(), expected.len());
    for (i, (value, expected)) in planes.iter().zip(&expected).enumerate() {
        let channel = i / (32 * 32);
        let normalised = (value - mean[channel]) / std[channel];
        assert!((normalised - expected).abs() < 1e-6, "{i}: {normalised} {expected}");
    }
}

#[test]
fn hostile_pictures_are_refused_or_loaded_as_they_must() {
    let index = json("refuse.json");
    let mut seen = 0;
    for case in index["cases"].as_array().unwrap() {
        if case["level"] != "picture" {
            continue;
        }
        seen += 1;
        let file = case["file"].as_str().unwrap();
        let name = file.trim_start_matches("pictures/");
        let result = Picture::decode(&read(&format!("refuse/{file}")), &Limits::default());
        let message = match result {
            Ok(decoded) => {
                let picture = Resize::new(224).decoded(&decoded, Order::RgbFirst);
                assert_eq!((picture.width, picture.height), (224, 224));
                None
            }
            Err(source) => {
                assert_eq!(kind(&source), case["reason"].as_str().unwrap(), "{file}: {source}");
                Some(DataError::Picture { key: name.into(), source }.to_string())
            }
        };
        match (case["expect"].as_str().unwrap(), &message) {
            ("load", None) | ("either", None) | ("refuse", Some(_)) | ("either", Some(_)) => {}
            (expect, found) => panic!("{file}: expected {expect}, found {found:?}"),
        }
        if let Some(message) = message {
            for part in case["must_name"].as_array().unwrap() {
                let part = part.as_str().unwrap();
                let lower = message.to_lowercase();
                assert!(lower.contains(&part.to_lowercase()), "{file}: {message} without {part}");
            }
        }
    }
    assert_eq!(seen, 33);
}

/// The reason codes of the golden set.
fn kind(error: &PictureError) -> &'static str {
    match error {
        PictureError::Empty => "empty",
        PictureError::NotAPicture(_) => "not_a_picture",
        PictureError::TooLarge { .. } | PictureError::TooManyBytes { .. } => "too_large",
        PictureError::Truncated(_) => "truncated",
        PictureError::BadChecksum(_) => "bad_checksum",
        PictureError::Broken(_) => "bad_picture",
        PictureError::Io { .. } => "io",
    }
}
