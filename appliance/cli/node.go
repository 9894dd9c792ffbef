package cli

import (
	"fmt"
	"io"

	"pmsapp/appliance"
	"pmsapp/appliance/config"
	"pmsapp/appliance/demo"
)

type serveCmd struct{}

func (serveCmd) Run(e *env) error {
	return appliance.Serve(e.ctx, e.Config, e.Err)
}

type initCmd struct {
	Restore string `help:"A backup of a catalog (pmsapp catalog backup): begin that cluster anew. Its volumes wait for pmsapp volume force." placeholder:"FILE" type:"path"`
}

func (cmd initCmd) Run(e *env) error {
	c, err := config.Load(e.Config)
	if err != nil {
		return err
	}
	made, err := appliance.Init(e.ctx, c, cmd.Restore)
	if err != nil {
		return err
	}
	return e.show(made, func(w io.Writer) {
		if made.Backup != nil {
			tellRestored(w, made, e.Config)
			return
		}
		fmt.Fprintf(w, "%s is the first node of cluster %s.\n", c.Name, made.Cluster)
		fmt.Fprintf(w, "The admin token is in %s.\n", made.TokenFile)
		fmt.Fprintf(w, "Now: pmsapp serve --config %s\n", e.Config)
	})
}

type joinCmd struct {
	Token   string `arg:"" help:"What pmsapp node token printed on a node of the cluster."`
	Witness bool   `help:"Be a witness: vote, and have no pools."`
}

func (cmd joinCmd) Run(e *env) error {
	c, err := config.Load(e.Config)
	if err != nil {
		return err
	}
	made, err := appliance.Join(e.ctx, c, cmd.Token, cmd.Witness)
	if err != nil {
		return err
	}
	return e.show(made, func(w io.Writer) {
		fmt.Fprintf(w, "%s is a node of cluster %s.\n", c.Name, made.Cluster)
		fmt.Fprintf(w, "Now: pmsapp serve --config %s\n", e.Config)
	})
}

type demoCmd struct {
	Data  string `help:"The directory for the nodes' data." default:"demo-data" env:"DATA" type:"path"`
	Image string `help:"A disk image to copy into the LUN." env:"IMAGE" type:"path"`
	Once  bool   `help:"End by itself, with exit status 0 if all went well." env:"ONCE"`
}

func (cmd demoCmd) Run(e *env) error {
	return demo.Run(e.ctx, demo.Config{Dir: cmd.Data, Image: cmd.Image, Once: cmd.Once, Out: e.Out})
}
