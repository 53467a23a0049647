use super::*;

/// Each age falls into one column: the first whose end it has not reached.
#[test]
fn each_age_has_one_column() {
    for (age_s, column) in [
        (-10, 0),
        (0, 0),
        (299, 0),
        (300, 1),
        (1199, 1),
        (1200, 2),
        (3600, 3),
        (14_400, 4),
        (86_400, 5),
        (432_000, 6),
        (i64::MAX, 6),
    ] {
        let mut ages = Ages::default();
        ages.add(age_s);
        assert_eq!(ages.counts.iter().position(|&count| count == 1), Some(column), "{age_s}");
        assert_eq!(ages.total(), 1);
    }
}
