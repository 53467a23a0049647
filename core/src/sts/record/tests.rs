use super::*;

fn id(texts: &[&str]) -> Result<alloc::string::String, RecordTrouble> {
    find(texts.iter().map(|text| text.as_bytes())).map(|id| id.as_str().into())
}

#[test]
fn a_record_tells_the_id_of_the_current_policy() {
    let long = alloc::format!("v=STSv1; id={}", "a".repeat(32));
    for (record, expected) in [
        ("v=STSv1; id=20160831085700Z;", "20160831085700Z"),
        ("v=STSv1;id=1", "1"),
        ("v=STSv1;id=1;", "1"),
        ("v=STSv1 ;\t id=1 ; ", "1"),
        ("v=STSv1; a=b; id=aZ9; x-y_z.1=!\"<>~", "aZ9"),
        ("v=STSv1; id=first; id=second; id=", "first"),
        (&long, &long[12..]),
    ] {
        assert_eq!(id(&[record]).as_deref(), Ok(expected), "{record}");
    }
}

#[test]
fn records_about_other_things_do_not_count() {
    let others =
        ["", "v=spf1 -all", "v=STSv2; id=2;", "v=STSv10; id=2;", " v=STSv1; id=2;", "V=STSv1; id=2;"];
    assert_eq!(id(&others), Err(RecordTrouble::Absent));
    assert_eq!(id(&[]), Err(RecordTrouble::Absent));
    for position in 0..=others.len() {
        let mut all = others.to_vec();
        all.insert(position, "v=STSv1; id=1;");
        assert_eq!(id(&all).as_deref(), Ok("1"));
    }
}

#[test]
fn of_two_records_none_counts_even_if_they_are_equal() {
    for second in ["v=STSv1; id=2;", "v=STSv1; id=1;", "v=STSv1; nothing"] {
        assert_eq!(id(&["v=STSv1; id=1;", second]), Err(RecordTrouble::Several), "{second}");
        assert_eq!(id(&[second, "v=STSv1; id=1;"]), Err(RecordTrouble::Several), "{second}");
    }
}

#[test]
fn a_malformed_record_does_not_count() {
    let long_id = alloc::format!("v=STSv1; id={}", "a".repeat(33));
    let long_name = alloc::format!("v=STSv1; id=1; {}=1", "a".repeat(33));
    for record in [
        "v=STSv1;",
        "v=STSv1; ;",
        "v=STSv1; id=",
        "v=STSv1; id=;",
        "v=STSv1; id=;id=1",
        "v=STSv1; id=a-b",
        "v=STSv1; id=a b",
        "v=STSv1; id = 1",
        "v=STSv1; ID=1",
        "v=STSv1; x=1",
        "v=STSv1; id=1; x",
        "v=STSv1; id=1; x=",
        "v=STSv1; id=1; =x",
        "v=STSv1; id=1; -x=1",
        "v=STSv1; id=1; x=a b",
        "v=STSv1; id=1; x=a=b",
        "v=STSv1; id=1;;",
        "v=STSv1;; id=1;",
        "v=STSv1; id=1\u{e9}",
        "v=STSv1; id=1; x=\u{e9}",
        &long_id,
        &long_name,
    ] {
        assert_eq!(id(&[record]), Err(RecordTrouble::Malformed), "{record}");
    }
    assert_eq!(find([&b"v=STSv1; id=1; x=\xff"[..]]), Err(RecordTrouble::Malformed));
}
