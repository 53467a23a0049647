//! TXT records that tell the id of an MTA-STS policy.

use cmail_delivery::sts::{PolicyId, RecordTrouble, find};

/// Checks records: the octets are those records, one on each line.
pub fn check(octets: &[u8]) {
    let records: Vec<&[u8]> = octets.split(|&octet| octet == b'\n').collect();
    let found = find(records.iter().copied());
    let about: Vec<&[u8]> = records.iter().copied().filter(|record| is_about_sts(record)).collect();
    match &found {
        Err(RecordTrouble::Absent) => assert!(about.is_empty()),
        Err(RecordTrouble::Several) => assert!(about.len() > 1),
        Err(RecordTrouble::Malformed) => assert_eq!(expected_id(&about), None),
        Ok(id) => {
            assert_eq!(expected_id(&about).as_deref(), Some(id.as_str()));
            assert_eq!(PolicyId::parse(id.as_str()).as_ref(), Some(id));
            let plain = format!("v=STSv1;id={id}");
            assert_eq!(find([plain.as_bytes()]).as_ref(), Ok(id), "what is read can be written");
        }
    }
    assert_eq!(find(records.iter().rev().copied()), found, "the order of records means nothing");
    let others = [&b"v=spf1 -all"[..], b"v=STSv2; id=1"];
    assert_eq!(find(others.into_iter().chain(records)), found, "other records mean nothing");
}

fn is_about_sts(record: &[u8]) -> bool {
    let mut octets = record.iter().skip_while(|octet| matches!(octet, b' ' | b'\t'));
    record.starts_with(b"v=STSv1") && octets.by_ref().nth(6).is_some() && {
        octets.find(|octet| !matches!(octet, b' ' | b'\t')) == Some(&b';')
    }
}

/// Returns the id of one record, read octet by octet as the grammar of RFC 8461 section 3.1 has it.
fn expected_id(about: &[&[u8]]) -> Option<String> {
    let [record] = about else { return None };
    let mut fields: Vec<Vec<u8>> = record.split(|&octet| octet == b';').map(<[u8]>::to_vec).collect();
    for field in &mut fields {
        while matches!(field.first(), Some(b' ' | b'\t')) {
            field.remove(0);
        }
        while matches!(field.last(), Some(b' ' | b'\t')) {
            field.pop();
        }
    }
    if fields.len() > 2 && fields.last().is_some_and(Vec::is_empty) {
        fields.pop();
    }
    let mut ids = Vec::new();
    for field in fields.iter().skip(1) {
        let at = field.iter().position(|&octet| octet == b'=')?;
        let (name, value) = (&field[..at], &field[at + 1..]);
        let is_id = name == b"id";
        let may_stand = |octet: &u8| match octet {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => true,
            _ => !is_id && matches!(octet, 0x21..=0x3a | 0x3c | 0x3e..=0x7e),
        };
        if is_id && !ids.is_empty() {
            continue;
        }
        let is_name = name.len() <= 32
            && name.first().is_some_and(u8::is_ascii_alphanumeric)
            && name.iter().all(|octet| octet.is_ascii_alphanumeric() || b"_-.".contains(octet));
        if !is_name || value.is_empty() || !value.iter().all(may_stand) || (is_id && value.len() > 32) {
            return None;
        }
        if is_id {
            ids.push(String::from_utf8(value.to_vec()).ok()?);
        }
    }
    ids.into_iter().next()
}
