"""Controls of requests: networks that a picture steers."""
