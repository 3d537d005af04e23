// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/deucaliondb/deucalion/api"
)

// webOptions are flags of Prometheus's web handler beyond those that every server has.
type webOptions struct {
	configFile       string
	routePrefix      string
	userAssets       string
	consoleTemplates string
	consoleLibraries string
	pageTitle        string
	enableLifecycle  bool
	enableOTLP       bool
	maxNotifications int
	searchLimit      int
}

func (w *webOptions) flags(app *kingpin.Application) {
	app.Flag("web.config.file", "[EXPERIMENTAL] Path to configuration file that can enable TLS or authentication.").
		Default("").StringVar(&w.configFile)
	app.Flag("web.max-notifications-subscribers", "Limits the maximum number of subscribers that can concurrently receive live notifications. If the limit is reached, new subscription requests will be denied until existing connections close.").
		Default("16").IntVar(&w.maxNotifications)
	app.Flag("web.route-prefix", "Prefix for the internal routes of web endpoints. Defaults to path of --web.external-url.").
		PlaceHolder("<path>").StringVar(&w.routePrefix)
	app.Flag("web.user-assets", "Path to static asset directory, available at /user.").
		PlaceHolder("<path>").StringVar(&w.userAssets)
	app.Flag("web.enable-lifecycle", "Enable shutdown and reload via HTTP request.").
		Default("false").BoolVar(&w.enableLifecycle)
	app.Flag("web.enable-otlp-receiver", "Enable API endpoint accepting OTLP write requests.").
		Default("false").BoolVar(&w.enableOTLP)
	app.Flag("web.console.templates", "Path to the console template directory, available at /consoles.").
		Default("consoles").StringVar(&w.consoleTemplates)
	app.Flag("web.console.libraries", "Path to the console library directory.").
		Default("console_libraries").StringVar(&w.consoleLibraries)
	app.Flag("web.page-title", "Document title of Prometheus instance.").
		Default("Deucalion Time Series Collection and Processing Server").StringVar(&w.pageTitle)
	app.Flag("web.search.max-limit", "Hard upper bound on the \"limit\" query parameter accepted by the experimental search API (--enable-feature=search-api). Requests with a higher limit are rejected with HTTP 400. 0 disables the cap.").
		Default("10000").IntVar(&w.searchLimit)
}

// serveWeb fills in what the flags of Prometheus's web handler say.
func (n *node) serveWeb(o *options, c *api.Config) {
	c.RoutePrefix = o.web.routePrefix
	c.EnableLifecycle = o.web.enableLifecycle
	c.Reload = n.config.reload
	c.Quit = func() { close(n.quit) }
	c.EnableOTLP = o.web.enableOTLP
	c.OTLP = api.OTLPOptions{
		ConvertDelta: o.features.has("otlp-deltatocumulative"),
		NativeDelta:  o.features.has("otlp-native-delta-ingestion"),
	}
	c.TypeAndUnitLabels = o.features.has("type-and-unit-labels")
	c.Appendable = n.appender.ForClients()
	c.Search = api.SearchOptions{Enable: o.features.has("search-api"), MaxLimit: o.web.searchLimit}
	c.Consoles = api.ConsoleOptions{Templates: o.web.consoleTemplates, Libraries: o.web.consoleLibraries}
	c.UserAssets = o.web.userAssets
	c.PageTitle = o.web.pageTitle
	c.Notifications = n.notices
	c.LookbackDelta = time.Duration(o.lookback)
}
