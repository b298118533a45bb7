//! Properties of operations and methods that hold for every picture.

use super::*;

/// A picture of noise on a ramp.
fn noisy(width: u32, height: u32) -> Picture {
    let mut stream = Stream::counted(3, "noisy", u64::from(width * 1000 + height));
    let rgb = (0..3 * width * height).map(|i| (i / 7 + stream.bits() % 90) as u8).collect();
    Picture { width, height, rgb }
}

/// Sizes that are awkward somewhere: for a blur, a 3 x 3 filter, a crop.
const SIZES: [(u32, u32); 6] = [(1, 1), (2, 1), (1, 70), (3, 2), (40, 34), (200, 3)];

#[test]
fn identities_change_nothing() {
    for (width, height) in SIZES {
        let picture = &noisy(width, height);
        let same =
            |what: &str, found: Picture| assert!(found == *picture, "{what} {width}x{height}");
        same("brightness", colour::brightness(picture, 1.0));
        same("contrast", colour::contrast(picture, 1.0));
        same("saturation", colour::saturation(picture, 1.0));
        same("sharpness", filter::sharpness(picture, 1.0));
        same("posterize", tables::posterize(picture, 8));
        same("solarize", tables::solarize(picture, 256.0));
        same("inverted twice", tables::invert(&tables::invert(picture)));
        same("mirrored twice", geometry::flip(&geometry::flip(picture)));
        same("rotate", geometry::rotate(picture, 0.0));
        same("shear", geometry::shear_y(&geometry::shear_x(picture, 0.0), 0.0));
        same("translate", geometry::translate_y(&geometry::translate_x(picture, 0.9), -0.9));
        same("blur of nothing", filter::blur(picture, 1, 1.0));
        same("narrow blur", filter::blur(picture, 21, 0.1));
    }
}

#[test]
fn flat_pictures_stay_flat_under_what_looks_at_neighbours_or_histograms() {
    for (width, height) in SIZES {
        let flat = &Picture::filled(width, height, [7, 130, 255]);
        assert_eq!(filter::blur(flat, 21, 2.0), *flat);
        assert_eq!(filter::sharpness(flat, 1.9), *flat);
        assert_eq!(tables::autocontrast(flat), *flat);
        assert_eq!(tables::equalize(flat), *flat);
    }
}

#[test]
fn autocontrast_reaches_both_ends_and_rotation_comes_back() {
    let picture = noisy(40, 34);
    let stretched = tables::autocontrast(&picture);
    for channel in 0..3 {
        let levels: Vec<u8> = stretched.rgb.iter().skip(channel).step_by(3).copied().collect();
        assert_eq!((levels.iter().min(), levels.iter().max()), (Some(&0), Some(&255)));
    }
    let square = noisy(31, 31);
    let once = |picture: &Picture| geometry::rotate(picture, 90.0);
    assert_ne!(once(&square), square);
    assert_eq!(once(&once(&once(&once(&square)))), square);
}

#[test]
fn random_parts_are_in_range_and_of_every_size() {
    let scale = (0.08, 1.0);
    let (mut small, mut large) = (f64::INFINITY, 0.0_f64);
    for i in 0..2000 {
        let mut stream = Stream::counted(0, "part", i);
        let area = geometry::random_area((200, 150), scale, crop::RATIO, &mut stream);
        assert!(area.left + area.width <= 200 && area.top + area.height <= 150, "{area:?}");
        let share = f64::from(area.width * area.height) / 30_000.0;
        let shape = f64::from(area.width) / f64::from(area.height);
        assert!((0.07..=1.0).contains(&share) && (0.7..=1.4).contains(&shape), "{area:?}");
        (small, large) = (small.min(share), large.max(share));
    }
    assert!(small < 0.1 && large > 0.9, "{small} {large}");
    // No part of that shape fits: the middle.
    let thin =
        geometry::random_area((300, 3), (1.0, 1.0), crop::RATIO, &mut Stream::counted(0, "", 0));
    assert_eq!(thin, crate::Area { left: 148, top: 0, width: 4, height: 3 });
}

#[test]
fn a_view_is_a_function_of_its_key() {
    for method in CATALOGUE {
        let made = parse(method.name).unwrap();
        let picture = noisy(64, 48);
        let view =
            |key: &str, epoch, view| made.view(&picture, 32, &mut stream(5, key, epoch, view));
        assert_eq!(view("a", 0, 0), view("a", 0, 0), "{}", method.name);
        // Two views may be equal by chance, but not all of them.
        for (what, others) in [
            ("keys", ["b", "c", "d", "e"].map(|key| view(key, 0, 0))),
            ("epochs", [1, 2, 3, 4].map(|epoch| view("a", epoch, 0))),
            ("views", [1, 2, 3, 4].map(|number| view("a", 0, number))),
        ] {
            let first = view("a", 0, 0);
            assert!(others.iter().any(|other| *other != first), "{}: {what}", method.name);
        }
    }
    assert_ne!(stream(0, "a\0\0\0\0\0\0\0\0", 0, 0).bits(), stream(0, "a", 0, 0).bits());
}

#[test]
fn every_method_takes_every_size() {
    for method in CATALOGUE {
        let made = parse(method.name).unwrap();
        for (width, height) in SIZES {
            for i in 0..20 {
                let picture = noisy(width, height);
                let view = made.view(&picture, 16, &mut stream(0, "size", i, 0));
                let size = if method.name == "autoaugment" { (width, height) } else { (16, 16) };
                assert_eq!((view.width, view.height), size, "{}", method.name);
                assert_eq!(view.rgb.len(), 3 * (size.0 * size.1) as usize, "{}", method.name);
            }
        }
    }
}

#[test]
fn probabilities_of_zero_leave_the_crop_alone() {
    let none = parse("simclr:area=1,flip=0,jitter=0,grey=0,blur=0").unwrap();
    let picture = noisy(32, 32);
    let whole = (0..40).filter(|&i| none.view(&picture, 32, &mut stream(0, "k", i, 0)) == picture);
    // The whole area in another shape does not fit; in its own it is the picture.
    assert_eq!(whole.count(), 40);
}
