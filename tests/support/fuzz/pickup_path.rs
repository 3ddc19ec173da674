//! What the fuzz target of pick-up paths checks: no server sends an agent anywhere but where its control link goes.

use http::Uri;
use revdial::dialback::{pickup_ids, pickup_uri, request_of};

/// A control link's URI, a line end, and a path: it is followed to where the control link goes, or not at all.
pub(crate) fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (control, path) = text.split_once('\n').unwrap_or(("", &text));
    let control: Uri =
        control.parse().unwrap_or_else(|_| Uri::from_static("https://gateway/api/v1/revdial?runnerid=a"));

    if let Some((dialer, request)) = pickup_ids(path) {
        let lower = path.to_ascii_lowercase();
        assert!(lower.contains(&dialer.to_string()) && lower.contains(&request.to_string()));
    }
    let request = request_of(path);
    let Ok(uri) = pickup_uri(&control, path) else { return };
    assert_eq!((uri.scheme(), uri.authority()), (control.scheme(), control.authority()));
    assert_eq!(uri.path(), control.path());
    assert_eq!(uri.query(), path.strip_prefix("/revdial?"));
    assert_eq!(pickup_ids(uri.query().unwrap_or_default()).map(|(_, request)| request), request);
    assert_eq!(uri.to_string().parse::<Uri>().expect("a URI"), uri, "it is read as it was made");
}
