use super::*;

#[test]
fn an_error_tells_no_password() {
    let servers = [
        "nats://user:pa@ss@host:4222".to_owned(),
        "tls://b:1".to_owned(),
    ];
    assert_eq!(hidden(&servers), "host:4222, b:1");
}
