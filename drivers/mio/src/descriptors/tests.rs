use super::*;

#[test]
fn the_limit_is_as_high_as_it_goes() {
    let limit = raise_limit().unwrap();
    assert_eq!(resource::getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (limit, limit));
}

#[test]
fn connections_leave_room_for_the_database_and_for_name_servers() {
    let connections = [0, 67, 74, 1024, 65_536, u64::MAX].map(connections_within);
    assert_eq!(connections, [1, 1, 6, 718, 65_214, u32::MAX]);
}
