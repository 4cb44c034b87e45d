package proxytest

import "fmt"

// web answers as the console on the RESP port does; the body is shortened.
func (d *Dragonfly) web(path string) string {
	page := func(status, header, kind, body string) string {
		return fmt.Sprintf("HTTP/1.1 %s\r\nContent-Type: %s\r\n%sContent-Length: %d\r\n\r\n%s", status, kind, header, len(body), body)
	}
	d.mu.Lock()
	locked := d.config["requirepass"] != ""
	d.mu.Unlock()
	switch {
	case path == "/metrics":
		return page("200 OK", "", "text/plain", "# HELP dragonfly_version \n# TYPE dragonfly_version gauge\ndragonfly_version{version=\"df-v1.40.1\"} 1\n")
	case locked:
		return page("401 Unauthorized", "WWW-Authenticate: Basic realm=\"Restricted Area\"\r\n", "text/plain", "Please authorize!\r\n")
	}
	return page("200 OK", "", "text/html", "<!DOCTYPE html>\n<html><head>\n</head>\n<body></body></html>\n")
}
