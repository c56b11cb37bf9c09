package cli

// groups lists the management commands.
func groups() []group {
	return []group{
		{"container", "Manage containers"},
		{"image", "Manage images"},
	}
}

// commands lists every command. Building one is up to the caller.
func commands() []command {
	return []command{
		attachCommand(),
		containerInspectCommand(),
		createCommand(),
		diffCommand(),
		execCommand(),
		imageInspectCommand(),
		imagesCommand(),
		inspectCommand(),
		killCommand(),
		logsCommand(),
		pauseCommand(),
		portCommand(),
		psCommand(),
		pullCommand(),
		renameCommand(),
		restartCommand(),
		rmCommand(),
		rmiCommand(),
		runCommand(),
		startCommand(),
		stopCommand(),
		tagCommand(),
		topCommand(),
		unpauseCommand(),
		versionCommand(),
		waitCommand(),
	}
}
