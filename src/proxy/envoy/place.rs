//! Visitors that keep their place: a few lines of Lua, run by the filter that the operator adds to the listener.
//!
//! Envoy can keep a visitor at an instance by a hash, but knows no places that mean the same at every proxy and move one way
//! as the share rises. So the script throws a place for whoever brings none, hands it to the split of the route as a
//! header (`header_name`), which goes no further, and tells it to the visitor in the cookie.

use serde_json::{Value, json};

use super::config::with;
use crate::fleet::names::{FleetName, ServiceName};
use crate::proxy::place_cookie;

/// The header by which the script tells the route a place. What a client puts there is replaced.
pub(super) const HEADER: &str = "x-pilothouse-place";
/// The filter's name.
const FILTER: &str = "envoy.filters.http.lua";
/// The type of its own configuration, by which it is found in a listener.
pub(super) const TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";

/// What the filter does here, in the form of a route.
pub(super) fn filter(does: Value) -> Value {
    json!({ FILTER: with(does, json!({ "@type": format!("{TYPE}PerRoute") })) })
}

/// The filter, to be added to a listener.
pub(super) fn line() -> String {
    format!("- {{ name: {FILTER}, typed_config: {{ \"@type\": {TYPE} }} }}")
}

/// Two cookies of the name are none, and so is one that holds no place.
const SCRIPT: &str = r#"
local seeded = false
local function kept(headers)
  local found = nil
  for i = 0, headers:getNumValues("cookie") - 1 do
    for pair in string.gmatch(headers:getAtIndex("cookie", i), "[^;]+") do
      local name, value = string.match(pair, "^%s*(.-)%s*=%s*(.-)%s*$")
      if name == "COOKIE" then
        if found ~= nil or not string.match(value, "^%d%d?%d?%d?$") then return nil end
        found = value
      end
    end
  end
  return found
end
function envoy_on_request(handle)
  local place = kept(handle:headers())
  if place == nil then
    if not seeded then
      math.randomseed(tonumber(string.sub(handle:timestampString(EnvoyTimestampResolution.MICROSECOND), -9)))
      seeded = true
    end
    place = tostring(math.random(0, 9999))
    handle:streamInfo():dynamicMetadata():set("pilothouse", "place", place)
  end
  handle:headers():replace("HEADER", place)
  handle:clearRouteCache()
end
function envoy_on_response(handle)
  local told = handle:streamInfo():dynamicMetadata():get("pilothouse")
  if told ~= nil and told["place"] ~= nil then
    handle:headers():add("set-cookie", "COOKIE=" .. told["place"] .. "; Path=/; HttpOnly; SameSite=Lax")
  end
end
"#;

/// The script for a service.
pub(super) fn script(fleet: &FleetName, service: &ServiceName) -> String {
    SCRIPT.trim_start().replace("COOKIE", &place_cookie(fleet, service)).replace("HEADER", HEADER)
}
