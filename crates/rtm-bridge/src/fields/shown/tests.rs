use super::*;

/// Holds: of a URL only scheme, host and port are shown, whatever else stands in it.
#[test]
fn of_a_url_only_the_host_is_shown() {
    for (url, shown) in [
        ("nats://user:pa/ss@host:4222", "nats://host:4222"),
        ("nats://token@host", "nats://host"),
        ("user:p@ss@host:9092", "host:9092"),
        ("https://host/path?token=x#y", "https://host"),
        ("https://host?token=x", "https://host"),
        ("[::1]:9092", "[::1]:9092"),
        ("host:9092", "host:9092"),
        ("", ""),
    ] {
        assert_eq!(host(url), shown, "{url}");
    }
}
