use super::*;

#[test]
fn strings_are_read_as_in_rust() {
    assert_eq!(unquote(r#""a\r\n\xff\"\\" *3"#), Ok((b"a\r\n\xff\"\\".to_vec(), " *3")));
    for text in ["a", "\"a", r#""\x1""#, r#""\q""#, "\"a\\"] {
        assert!(unquote(text).is_err(), "{text}");
    }
    let all: Vec<u8> = (0..=255).chain(*b"\\'\\\\'\"").collect();
    assert_eq!(unquote(&quote(&all)), Ok((all, "")));
}
