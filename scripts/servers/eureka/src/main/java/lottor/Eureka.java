package lottor;

import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.cloud.netflix.eureka.server.EnableEurekaServer;
import org.springframework.context.annotation.Bean;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.web.SecurityFilterChain;

/** A Eureka server for tests: open, or behind basic authentication where a password is given. */
@SpringBootApplication
@EnableEurekaServer
public class Eureka {
	public static void main(String[] args) {
		SpringApplication.run(Eureka.class, args);
	}

	@Bean
	SecurityFilterChain security(HttpSecurity http, @Value("${eureka.password:}") String password) throws Exception {
		http.csrf(csrf -> csrf.disable());
		if (password.isEmpty()) {
			return http.authorizeHttpRequests(requests -> requests.anyRequest().permitAll()).build();
		}
		return http.authorizeHttpRequests(requests -> requests.anyRequest().authenticated())
				.httpBasic(Customizer.withDefaults())
				.build();
	}
}
