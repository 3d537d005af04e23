// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/alecthomas/kingpin/v2"

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
}
