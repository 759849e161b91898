"""What people look at: command line, pictures, HTML. Built on the public facade alone."""
