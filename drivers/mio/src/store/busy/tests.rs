use super::*;

#[test]
fn pauses_grow_up_to_the_longest() {
    let pauses = [0, 1, 2, 5, 6, 63, 64, i32::MAX, -1].map(|attempt| pause(attempt).as_millis());
    assert_eq!(pauses, [1, 2, 4, 32, 32, 32, 32, 32, 32]);
}
