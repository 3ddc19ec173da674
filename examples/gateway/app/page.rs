//! The status page: one file of HTML, one of script, one of style, and the form that asks for the token.
//!
//! They are in the program, and come with a policy that lets a browser load these and nothing else. What the page
//! shows comes from `/stats` and `/events`.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};

/// What belongs to the gateway at every host name, those of sandboxes included.
pub(crate) const PREFIX: &str = "/.gateway/";
pub(crate) const SCRIPT: &str = "/.gateway/status.js";
pub(crate) const STYLE: &str = "/.gateway/status.css";

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub(crate) async fn status() -> Html<&'static str> {
    Html(include_str!("../page/status.html"))
}

pub(crate) async fn script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("../page/status.js"))
}

pub(crate) async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("../page/status.css"))
}

/// What one gets who may not: 401, and for a person the form that asks for the token.
pub(crate) fn login(for_a_person: bool, complaint: Option<&'static str>) -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    if !for_a_person {
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    }
    let form = include_str!("../page/login.html").replace("{complaint}", complaint.unwrap_or_default());
    with_policy((StatusCode::UNAUTHORIZED, challenge, Html(form)).into_response())
}

/// The headers of all that is the gateway's own.
pub(crate) async fn guarded(response: Response) -> Response {
    with_policy(response)
}

fn with_policy(mut response: Response) -> Response {
    const CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"), // not none: forms would come with a null origin
        (header::CACHE_CONTROL, "no-store"),
        (CORP, "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
