// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/template"
	"github.com/prometheus/prometheus/util/httputil"
)

// ConsoleOptions are directories of this node.
type ConsoleOptions struct {
	// Templates holds the pages ("": there are none), Libraries the *.lib files that they may use.
	Templates, Libraries string
}

// consolePreamble gives the variables that Prometheus's console templates use.
const consolePreamble = "{{$rawParams := .RawParams }}{{$params := .Params}}{{$path := .Path}}{{$externalLabels := .ExternalLabels}}"

type consoleData struct {
	RawParams      url.Values
	Params         map[string]string // the first value of each
	Path           string
	ExternalLabels map[string]string
}

// console expands a page of the user's, with Prometheus's template language.
func (a *API) console(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("path")
	text, err := readFile(a.cfg.Consoles.Templates, name)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	raw, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	data := consoleData{RawParams: raw, Params: map[string]string{}, Path: strings.TrimLeft(name, "/")}
	for key, values := range raw {
		data.Params[key] = values[0]
	}
	conf := a.cfg.PrometheusConfig()
	data.ExternalLabels = conf.GlobalConfig.ExternalLabels.Map()
	libraries, err := filepath.Glob(filepath.Join(a.cfg.Consoles.Libraries, "*.lib"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	page := template.NewTemplateExpander(
		httputil.ContextFromRequest(r.Context(), r), consolePreamble+string(text), "__console_/"+name, data, model.Now(),
		template.QueryFunc(rules.EngineQueryFunc(a.cfg.Engine, a.cfg.Source)), a.cfg.ExternalURL, nil,
	)
	result, err := page.ExpandHTML(libraries)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = io.WriteString(w, result) // the client is gone if this fails
}

// readFile reads a file below dir; http.Dir keeps the name from leading out of it.
func readFile(dir, name string) ([]byte, error) {
	f, err := http.Dir(dir).Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}
