//! Paths and escaped text.

use proptest::prelude::*;
use shiplane_wire::limits::{MAX_COMPONENT_LEN_BYTES, MAX_ESCAPED_PATH_LEN_BYTES, MAX_PATH_LEN_BYTES};
use shiplane_wire::{EscapedPath, RelPath, escape, fuzz};

proptest! {
    #[test]
    fn any_bytes_are_a_safe_path_or_none(bytes: Vec<u8>) {
        fuzz::path(&bytes);
    }

    #[test]
    fn what_looks_like_a_path_is_a_safe_one_or_none(path in "[./a\\\\\u{1b}\u{202e}é]{0,24}") {
        fuzz::path(path.as_bytes());
    }

    #[test]
    fn a_path_is_accepted_exactly_by_the_rules(parts in prop::collection::vec(part(), 0..70)) {
        let path = parts.join(&b'/');
        let legal = |part: &Vec<u8>| {
            !matches!(&part[..], b"" | b"." | b"..")
                && part.len() <= MAX_COMPONENT_LEN_BYTES
                && !part.contains(&0)
        };
        let expected = !parts.is_empty()
            && parts.iter().all(legal)
            && path.len() <= MAX_PATH_LEN_BYTES;
        let parsed = RelPath::parse(&path);
        prop_assert_eq!(parsed.is_ok(), expected, "{:?}", parsed);
        if let Ok(parsed) = parsed {
            prop_assert!(parsed.components().eq(parts.iter().map(Vec::as_slice)));
        }
    }

    #[test]
    fn different_bytes_never_look_alike(a in nasty(), b in nasty()) {
        prop_assert_eq!(a == b, escape(&a).to_string() == escape(&b).to_string());
    }

    #[test]
    fn an_escaped_path_fits_its_record(path in prop::collection::vec(any::<u8>(), 0..40_000)) {
        prop_assert!(EscapedPath::new(&path).as_str().len() <= MAX_ESCAPED_PATH_LEN_BYTES);
    }
}

/// Components, most of them legal.
fn part() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        60 => prop::collection::vec(b'a'..=b'z', 1..80),
        1 => prop::collection::vec(any::<u8>(), 0..4)
            .prop_map(|part| part.into_iter().filter(|byte| *byte != b'/').collect()),
        1 => (254usize..258).prop_map(|len| vec![b'x'; len]),
        1 => Just(b".".to_vec()),
        1 => Just(b"..".to_vec()),
    ]
}

/// Short bytes that are near each other's escaped form.
fn nasty() -> impl Strategy<Value = Vec<u8>> {
    prop::string::bytes_regex(r"(?-u:[\\x1b\x1b\x9b\n\xe2\x80\xae]){0,3}").unwrap()
}
