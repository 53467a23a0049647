use super::*;

#[test]
fn options_that_are_written_down_are_read_as_they_were() {
    for seed in 0..50 {
        let options = Options { messages: 3, ..Options::draw(&mut Dice::new(seed), 5) };
        let mut read = Options::default();
        for (name, value) in options.entries() {
            read.set(name, &value).unwrap();
        }
        assert_eq!(read, options);
    }
    assert!(Options::default().set("faults", "1").is_err());
    assert!(Options::default().set("ipv6", "1").is_err());
}
